//! What a machine costs, with its public address, as Hetzner's price list says.

use super::answers::{Kind, PricingAnswer};
use super::client::{Client, PRICING};
use crate::error::CloudError;
use crate::provider::Quote;

/// US dollars for one of another currency, in thousandths: higher than it has been in years, because who
/// pays should not be surprised. What is bound by it is `--max-spend`; the bill is in the project's currency.
const RATES: [(&str, u64); 2] = [("EUR", 1_250), ("USD", 1_000)];
/// Of one unit of a currency.
const MICRO: u64 = 1_000_000;

/// None: there is no such type there, or its currency is not known here.
pub(super) async fn quote(
    client: &Client,
    kinds: &[Kind],
    location: &str,
    name: &str,
) -> Result<Option<Quote>, CloudError> {
    let kind = kinds.iter().find(|kind| kind.name == name);
    let Some(server) = kind.and_then(|kind| hourly(kind, location)) else {
        return Ok(None);
    };
    let PricingAnswer { pricing } = client.get(PRICING, None).await?;
    let addresses = pricing.primary_ips.iter().filter(|one| one.kind == "ipv4");
    let address = addresses
        .flat_map(|one| &one.prices)
        .find(|price| price.location == location)
        .and_then(|price| micro(&price.price_hourly.gross));
    let currency = pricing.currency.as_str();
    let rate = RATES.iter().find(|(name, _)| *name == currency);
    let (Some((_, rate)), Some(address)) = (rate, address) else {
        tracing::info!(currency, "the price list says nothing that is understood");
        return Ok(None);
    };
    Ok(Some(told(server + address, currency, *rate)))
}

fn told(micro: u64, currency: &str, rate: u64) -> Quote {
    let milli_usd_per_hour = micro.saturating_mul(rate).div_ceil(MICRO);
    let (whole, rest) = (micro / MICRO, micro % MICRO);
    let source = format!(
        "price list of Hetzner, with address and tax, without traffic: {whole}.{rest:06} {currency}, at {}.{:02} USD",
        rate / 1_000,
        rate % 1_000 / 10
    );
    Quote {
        milli_usd_per_hour,
        source,
    }
}

/// What a type costs for one hour in a location, in millionths of the project's currency.
pub(super) fn hourly(kind: &Kind, location: &str) -> Option<u64> {
    let price = kind
        .prices
        .iter()
        .find(|price| price.location == location)?;
    micro(&price.price_hourly.gross)
}

/// `0.0119000000000000` in millionths, rounded up.
fn micro(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millionths: u64 = format!("{rest:0<6}")[..6].parse().ok()?;
    let more = u64::from(rest.bytes().skip(6).any(|b| b != b'0'));
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(MICRO)?.checked_add(millionths + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_in_millionths_and_never_too_low() {
        let check = |text, expected| assert_eq!(micro(text), expected, "{text}");
        check("0.0119000000000000", Some(11_900));
        check("0.0119000000000001", Some(11_901));
        check("1.19", Some(1_190_000));
        check("12", Some(12_000_000));
        check("", None);
        check("x.1", None);
        check("1.-1", None);
        check("99999999999999999999.0", None);
    }

    #[test]
    fn a_quote_is_in_dollars_rounded_up_and_says_what_it_is_made_of() {
        let quote = told(13_090, "EUR", 1_250);
        assert_eq!(quote.milli_usd_per_hour, 17);
        assert!(
            quote.source.ends_with("0.013090 EUR, at 1.25 USD"),
            "{quote:?}"
        );
        assert_eq!(told(0, "EUR", 1_250).milli_usd_per_hour, 0);
    }
}
