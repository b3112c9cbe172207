//! The definitions that come with the program, from the `templates` folder of the sources.

const ALL: &[(&str, &str)] = &[
    ("base", include_str!("../../../../templates/base.toml")),
    (
        "default",
        include_str!("../../../../templates/default.toml"),
    ),
    ("node", include_str!("../../../../templates/node.toml")),
    ("ruby", include_str!("../../../../templates/ruby.toml")),
    ("rust", include_str!("../../../../templates/rust.toml")),
];

pub(crate) fn text(name: &str) -> Option<&'static str> {
    ALL.iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}
