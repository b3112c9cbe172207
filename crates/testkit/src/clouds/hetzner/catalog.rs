//! Locations, types, images and prices. Names are those of the API reference's examples or made up; no
//! number is meant to be today's.

use serde_json::{Value, json};

/// When everything was made.
pub(super) const THEN: &str = "2026-11-01T00:00:00Z";

fn price(net: &str, gross: &str) -> Value {
    json!({ "net": net, "gross": gross })
}

pub(super) fn locations() -> Vec<Value> {
    let location = |id: u64, name: &str, city: &str, country: &str, zone: &str| {
        json!({
            "id": id, "name": name, "city": city, "country": country, "network_zone": zone,
            "description": format!("{city} DC Park 1"), "latitude": 50.5, "longitude": 12.4,
        })
    };
    vec![
        location(3, "hel1", "Helsinki", "FI", "eu-central"),
        location(2, "nbg1", "Nuremberg", "DE", "eu-central"),
        location(1, "fsn1", "Falkenstein", "DE", "eu-central"),
        location(4, "ash", "Ashburn, VA", "US", "us-east"),
    ]
}

fn hourly(location: &str, gross: &str) -> Value {
    json!({
        "location": location, "included_traffic": 21_990_232_555_520_u64,
        "price_hourly": price(gross, gross), "price_monthly": price("9.0000", "9.0000"),
        "price_per_tb_traffic": price("1.0000", "1.1900"),
    })
}

/// The cheapest is too small, the next are of another architecture, deprecated, elsewhere or sold out.
pub(super) fn server_types() -> Vec<Value> {
    let gone = || json!({ "announced": "2026-01-01T00:00:00Z", "unavailable_after": "2026-07-01T00:00:00Z" });
    let kind = |id: u64, name: &str, cores: u64, memory: f64, disk: u64, gross: &str| {
        let is_arm = name.starts_with("cax");
        let is_old = name == "cx41";
        let places: &[&str] = match name {
            "cpx31" => &["ash"],
            _ => &["fsn1", "nbg1", "hel1"],
        };
        let at = places.iter().enumerate().map(|(id, place)| {
            let ends = is_old || name == "cpx41" && *place == "fsn1";
            let deprecation = if ends { gone() } else { Value::Null };
            let is_left = name != "cx53";
            json!({
                "id": id, "name": place, "deprecation": deprecation, "available": is_left, "recommended": is_left,
            })
        });
        let prices = places.iter().map(|place| hourly(place, gross));
        json!({
            "id": id, "name": name, "description": name.to_uppercase(), "category": "Shared",
            "cores": cores, "memory": memory, "disk": disk, "storage_type": "local", "cpu_type": "shared",
            "architecture": if is_arm { "arm" } else { "x86" },
            "deprecated": is_old, "deprecation": if is_old { gone() } else { Value::Null },
            "locations": at.collect::<Vec<_>>(), "prices": prices.collect::<Vec<_>>(),
        })
    };
    vec![
        kind(1, "cx23", 2, 4.0, 40, "0.0060000000000000"),
        kind(2, "cax21", 4, 8.0, 80, "0.0070000000000000"),
        kind(3, "cx41", 4, 16.0, 160, "0.0080000000000000"),
        kind(4, "cpx31", 4, 8.0, 160, "0.0085000000000000"),
        kind(5, "cpx41", 8, 16.0, 240, "0.0090000000000000"),
        kind(6, "cx33", 4, 8.0, 80, "0.0119000000000000"),
        kind(8, "cx53", 16, 32.0, 320, "0.0100000000000000"),
        kind(7, "ccx23", 4, 16.0, 160, "0.0476000000000000"),
    ]
}

/// The right one is the third: the others are older, of another architecture, or a project's own.
pub(super) fn images() -> Vec<Value> {
    let image = |id: u64, kind: &str, architecture: &str, status: &str| {
        json!({
            "id": id, "type": kind, "status": status, "name": "ubuntu-24.04", "description": "Ubuntu 24.04",
            "architecture": architecture, "os_flavor": "ubuntu", "os_version": "24.04", "rapid_deploy": true,
            "bound_to": null, "created": THEN, "created_from": null, "deleted": null, "deprecated": null,
            "disk_size": 5.0, "image_size": null, "labels": {}, "protection": { "delete": false },
        })
    };
    vec![
        image(101, "system", "x86", "unavailable"),
        image(102, "system", "arm", "available"),
        image(103, "system", "x86", "available"),
        image(104, "snapshot", "x86", "available"),
    ]
}

pub(super) fn pricing() -> Value {
    let places = ["fsn1", "nbg1", "hel1", "ash"];
    let address = |kind: &str, gross: &str| {
        let prices = places.map(|place| {
            json!({
                "location": place, "price_hourly": price(gross, gross), "price_monthly": price("0.5000", "0.5950"),
            })
        });
        json!({ "type": kind, "prices": prices })
    };
    let kinds = server_types()
        .into_iter()
        .map(|kind| json!({ "id": kind["id"], "name": kind["name"], "prices": kind["prices"] }));
    json!({ "pricing": {
        "currency": "EUR", "vat_rate": "19.000000",
        "floating_ip": { "price_monthly": price("3.0000", "3.5700") }, "floating_ips": [],
        "image": { "price_per_gb_month": price("0.0110", "0.0131") },
        "load_balancer_types": [],
        "primary_ips": [address("ipv4", "0.0010000000000000"), address("ipv6", "0.0000000000000000")],
        "server_backup": { "percentage": "20.000000" },
        "server_types": kinds.collect::<Vec<_>>(),
        "volume": { "price_per_gb_month": price("0.0440", "0.0524") },
    } })
}
