//! What a machine costs: as AWS's price list says, or as a small table does where the list may not be read.

use serde_json::{Value, json};

use super::client::Client;
use super::json::{Question, ask};
use crate::error::{Class, CloudError};
use crate::provider::Quote;

/// AWS Price List API, 2017-10-15. It is in a few regions only, and knows the prices of all.
const GET_PRODUCTS: Question = Question {
    name: "GetProducts",
    host: "api.pricing",
    service: "pricing",
    target: "AWSPriceListService.GetProducts",
};
/// Where the list is read.
const LIST: &str = "us-east-1";
/// When the table was made.
const MADE: &str = "table of 2026-11, rounded; without disk and traffic";
/// Where the table holds.
const REGION: &str = "us-east-1";
/// On demand, Linux, in thousandths of a US dollar for one hour.
const TABLE: &[(&str, u64)] = &[("c5.metal", 4_080), ("c8i.2xlarge", 400)];

/// None: neither knows it.
pub(super) async fn quote(
    client: &Client,
    region: &str,
    kind: &str,
) -> Result<Option<Quote>, CloudError> {
    let known = || table(region, kind);
    match ask(client, LIST, GET_PRODUCTS, &question(region, kind)).await {
        Ok(answer) => Ok(read(&answer).map(listed).or_else(known)),
        Err(error) => {
            // Prices are a permission of their own, and no reason to stop. Without credentials
            // nothing else would go either, and what may pass is asked again.
            let stops = match error.class {
                Class::NoCredentials => true,
                Class::Auth => error.code.is_none(),
                class => class.may_pass(),
            };
            match known() {
                None if stops => Err(error),
                known => {
                    tracing::info!(%error, "the price list says nothing");
                    Ok(known)
                }
            }
        }
    }
}

fn listed(milli_usd_per_hour: u64) -> Quote {
    Quote {
        milli_usd_per_hour,
        source: "price list of AWS; without disk and traffic".to_owned(),
    }
}

fn table(region: &str, kind: &str) -> Option<Quote> {
    let known = TABLE.iter().find(|(name, _)| *name == kind);
    let (_, milli_usd_per_hour) = known.filter(|_| region == REGION)?;
    Some(Quote {
        milli_usd_per_hour: *milli_usd_per_hour,
        source: MADE.to_owned(),
    })
}

/// Linux on demand, nothing pre-installed, not on hardware of one's own.
fn question(region: &str, kind: &str) -> Value {
    let filters = [
        ("instanceType", kind),
        ("regionCode", region),
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
    ];
    let filters = filters
        .map(|(field, value)| json!({ "Type": "TERM_MATCH", "Field": field, "Value": value }));
    json!({ "ServiceCode": "AmazonEC2", "Filters": filters, "FormatVersion": "aws_v1" })
}

/// The dearest of all prices for an hour that are named: who pays should not be surprised. Each
/// product is JSON in a string.
fn read(answer: &Value) -> Option<u64> {
    let products = answer.get("PriceList")?.as_array()?;
    let products = products
        .iter()
        .filter_map(|product| serde_json::from_str::<Value>(product.as_str()?).ok());
    products
        .filter_map(|product| {
            let offers = product.get("terms")?.get("OnDemand")?.as_object()?;
            let dimensions = offers
                .values()
                .filter_map(|offer| offer.get("priceDimensions")?.as_object());
            dimensions
                .flat_map(|dimensions| dimensions.values())
                .filter(|dimension| dimension.get("unit").and_then(Value::as_str) == Some("Hrs"))
                .filter_map(|dimension| milli(dimension.get("pricePerUnit")?.get("USD")?.as_str()?))
                .max()
        })
        .max()
        .filter(|price| *price > 0)
}

/// `4.0800000000` in thousandths, rounded up.
fn milli(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{rest:0<3}")[..3].parse().ok()?;
    let more = u64::from(rest.bytes().skip(3).any(|b| b != b'0'));
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(thousandths + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_in_thousandths_and_never_too_low() {
        let check = |text, expected| assert_eq!(milli(text), expected, "{text}");
        check("4.0800000000", Some(4_080));
        check("0.3570000001", Some(358));
        check("12", Some(12_000));
        check("0.5", Some(500));
        check("", None);
        check("x.1", None);
        check("1.-1", None);
        check("99999999999999999999.0", None);
    }

    #[test]
    fn the_dearest_price_for_an_hour_counts() {
        let product = |unit: &str, usd: &str| {
            let dimension = json!({ "unit": unit, "pricePerUnit": { "USD": usd } });
            json!({ "terms": { "OnDemand": { "A.B": { "priceDimensions": { "A.B.C": dimension } } } } }).to_string()
        };
        let list = |products: &[String]| read(&json!({ "PriceList": products }));
        let prices = [
            product("Hrs", "0.4"),
            product("Hrs", "0.5"),
            product("Quantity", "9"),
        ];
        assert_eq!(list(&prices), Some(500));
        assert_eq!(list(&[product("Hrs", "0.0000000000")]), None);
        assert_eq!(list(&["no".to_owned()]), None);
        assert_eq!(list(&[]), None);
        assert_eq!(read(&json!({})), None);
    }
}
