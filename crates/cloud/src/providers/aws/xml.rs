//! XML as EC2 and STS write it: elements and text, no attributes that matter, no entities of its own.

use std::fmt;

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting. Answers of EC2 have about ten levels.
const DEEPEST: usize = 64;

/// An element with what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    name: String,
    /// Text, if there are no children.
    text: String,
    children: Vec<Node>,
}

/// Why bytes are not such XML.
#[derive(Debug, thiserror::Error)]
pub(super) enum XmlError {
    #[error("the answer is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    #[error("the answer is no XML: {0}")]
    Syntax(#[from] quick_xml::Error),
    #[error("the answer has a document type or an entity, which such answers have not")]
    Entity,
    #[error("the answer is nested deeper than {DEEPEST} levels")]
    Deep,
    #[error("the answer has no element, or more than one")]
    Root,
    #[error("the answer ends inside of an element")]
    Cut,
}

/// The one element that the bytes are.
pub(super) fn parse(bytes: &[u8]) -> Result<Node, XmlError> {
    let mut reader = Reader::from_str(std::str::from_utf8(bytes)?);
    let mut open: Vec<Node> = Vec::new();
    let mut root = None;
    loop {
        let done = match reader.read_event()? {
            Event::Start(start) => {
                if open.len() == DEEPEST {
                    return Err(XmlError::Deep);
                }
                open.push(Node::new(start.local_name().as_ref()));
                continue;
            }
            Event::Empty(start) => Node::new(start.local_name().as_ref()),
            // An end without its start is refused by the reader.
            Event::End(_) => open.pop().ok_or(XmlError::Root)?,
            Event::Text(text) => {
                add(&mut open, &text.xml10_content())?;
                continue;
            }
            Event::CData(text) => {
                add(&mut open, &text.xml10_content())?;
                continue;
            }
            Event::GeneralRef(reference) => {
                let text = match reference.resolve_char_ref()? {
                    Some(character) => character.to_string(),
                    None => predefined(&reference)?.to_owned(),
                };
                add(&mut open, &text)?;
                continue;
            }
            Event::DocType(_) => return Err(XmlError::Entity),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
            Event::Eof if open.is_empty() => return root.ok_or(XmlError::Root),
            Event::Eof => return Err(XmlError::Cut),
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(done),
            None if root.is_none() => root = Some(done),
            None => return Err(XmlError::Root),
        }
    }
}

/// Text outside of the element may be white space only.
fn add(open: &mut [Node], text: &str) -> Result<(), XmlError> {
    match open.last_mut() {
        Some(node) => node.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(XmlError::Root),
    }
    Ok(())
}

/// XML 1.0, section 4.6.
fn predefined(name: &str) -> Result<&'static str, XmlError> {
    Ok(match name {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "apos" => "'",
        "quot" => "\"",
        _ => return Err(XmlError::Entity),
    })
}

impl Node {
    fn new(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            ..Node::default()
        }
    }

    /// Name of the element.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The first element at the end of a path, `a/b/c`.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        path.split('/').try_fold(self, |node, name| {
            node.children.iter().find(|child| child.name == name)
        })
    }

    /// Its text. None: there is no such element, or nothing in it.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        let text = self.at(path)?.text.trim();
        (!text.is_empty()).then_some(text)
    }

    /// The elements of a list, `<set><item>..</item>..</set>`. None if there is no such list.
    pub(super) fn items(&self, path: &str) -> impl Iterator<Item = &Node> {
        self.at(path)
            .into_iter()
            .flat_map(|list| &list.children)
            .filter(|child| child.name == "item")
    }

    /// Its own text.
    pub(super) fn own_text(&self) -> &str {
        self.text.trim()
    }
}

impl fmt::Display for Node {
    /// The element's name: enough for a message.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "<{}>", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_texts_and_entities_are_read() {
        let node = parse(
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
              <set><item><id>i-1</id><n>a &lt;b&gt; &amp; &#x41;<![CDATA[&c]]></n></item><item><id> i-2\n</id></item><e/></set></R>\n",
        )
        .unwrap();
        assert_eq!(node.to_string(), "<R>");
        let ids: Vec<_> = node.items("set").map(|item| item.text("id")).collect();
        assert_eq!(ids, [Some("i-1"), Some("i-2")]);
        assert_eq!(node.text("set/item/n"), Some("a <b> & A&c"));
        assert_eq!(node.text("set/e"), None);
        assert_eq!(node.items("none").count(), 0);
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        let check = |text: &str, expected: &str| {
            let told = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
        };
        check("", "the answer has no element");
        check("no", "the answer has no element");
        check("<a/><b/>", "the answer has no element, or more");
        check("<a><b></a>", "the answer is no XML");
        check("<a>", "the answer ends inside");
        check("</a>", "the answer is no XML");
        check("<a>&x;</a>", "the answer has a document type or an entity");
        check(
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "the answer has a document type",
        );
        check(&"<a>".repeat(65), "the answer is nested deeper than 64");
        assert!(
            parse(b"<a>\xff</a>")
                .unwrap_err()
                .to_string()
                .contains("UTF-8")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_markup_is_read_or_refused(text in "(<a>|</a>|<b/>|&amp;|&#[0-9x]{1,7};|<!--|-->|<!\\[CDATA\\[|\\]\\]>|<\\?|\\?>|[ -~]){0,60}") {
            if let Ok(node) = parse(text.as_bytes()) {
                prop_assert!(!node.name().is_empty());
            }
        }
    }
}
