//! Parameters of a Query request: flat names with numbers from 1, `Filter.1.Value.2`.

use std::collections::BTreeMap;

/// Version of the EC2 API, as its reference names it.
pub(super) const EC2_VERSION: &str = "2016-11-15";
/// Version of the STS API.
pub(super) const STS_VERSION: &str = "2011-06-15";

/// Parameters in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// None yet.
    pub(super) fn new() -> Params {
        Params::default()
    }

    /// One more.
    #[must_use]
    pub(super) fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Params {
        self.0.push((name.into(), value.into()));
        self
    }

    /// `NAME.1`, `NAME.2` ...
    #[must_use]
    pub(super) fn list<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Params {
        (1..)
            .zip(values)
            .fold(self, |params, (n, value): (u32, _)| {
                params.set(format!("{name}.{n}"), value)
            })
    }

    /// One more filter: any of these values.
    #[must_use]
    pub(super) fn filter<'a>(
        self,
        name: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Params {
        let number = 1 + self
            .0
            .iter()
            .filter(|(key, _)| key.starts_with("Filter.") && key.ends_with(".Name"))
            .count();
        self.set(format!("Filter.{number}.Name"), name)
            .list(&format!("Filter.{number}.Value"), values)
    }

    /// One more kind of thing that gets these tags as it is made.
    #[must_use]
    pub(super) fn tagged(self, kind: &str, tags: &BTreeMap<String, String>) -> Params {
        let number = 1 + self
            .0
            .iter()
            .filter(|(key, _)| key.ends_with(".ResourceType"))
            .count();
        let base = format!("TagSpecification.{number}");
        let params = self.set(format!("{base}.ResourceType"), kind);
        (1..)
            .zip(tags)
            .fold(params, |params, (n, (key, value)): (u32, _)| {
                params
                    .set(format!("{base}.Tag.{n}.Key"), key)
                    .set(format!("{base}.Tag.{n}.Value"), value)
            })
    }

    /// As the body of a POST.
    pub(super) fn encode(&self, action: &str, version: &str) -> Vec<u8> {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("Action", action)
            .append_pair("Version", version);
        for (name, value) in &self.0 {
            body.append_pair(name, value);
        }
        body.finish().into_bytes()
    }

    /// All of them, in order.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_from_one() {
        let tags = BTreeMap::from([("k".to_owned(), "v w".to_owned())]);
        let params = Params::new()
            .filter("a", ["1", "2"])
            .filter("b", ["3"])
            .tagged("instance", &tags)
            .tagged("volume", &tags);
        let body = String::from_utf8(params.encode("Do", EC2_VERSION)).unwrap();
        assert_eq!(
            body,
            "Action=Do&Version=2016-11-15&Filter.1.Name=a&Filter.1.Value.1=1&Filter.1.Value.2=2\
             &Filter.2.Name=b&Filter.2.Value.1=3\
             &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v+w\
             &TagSpecification.2.ResourceType=volume&TagSpecification.2.Tag.1.Key=k&TagSpecification.2.Tag.1.Value=v+w"
        );
    }
}
