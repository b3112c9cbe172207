//! Networks that are let in, in CIDR notation.

use std::net::IpAddr;

/// A network without bits outside of its prefix, or what is wrong with it. Everybody is none.
pub(crate) fn network(text: &str) -> Result<String, &'static str> {
    const NO_NETWORK: &str = "it is no network such as 198.51.100.7/32";
    let (address, length) = text.split_once('/').ok_or(NO_NETWORK)?;
    let address: IpAddr = address.parse().map_err(|_| NO_NETWORK)?;
    let length: u32 = length.parse().map_err(|_| NO_NETWORK)?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    match length {
        0 => return Err("that is everybody"),
        _ if length > widest => return Err(NO_NETWORK),
        _ => {}
    }
    let address: IpAddr = match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & (u32::MAX << (32 - length))).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << (128 - length))).into()),
    };
    Ok(format!("{address}/{length}"))
}
