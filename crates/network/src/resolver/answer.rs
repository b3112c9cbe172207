//! Questions and answers: bytes in, values out. Source: RFC 1035, section 4.

use std::net::Ipv4Addr;

use simple_dns::rdata::{A, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use crate::policy::is_name;

/// Most addresses taken from an answer.
pub(super) const MAX_ADDRESSES: usize = 32;
/// Most aliases followed in an answer.
const MAX_ALIASES: usize = 16;
/// Largest question, in bytes: a header, and a name with its type.
const MAX_QUESTION: usize = 512;

/// What the guest asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: u16,
    /// In small letters, without a dot at its end.
    pub(super) name: String,
    /// Whether it asks for IPv4 addresses, the only thing there is.
    pub(super) addresses: bool,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Addresses with the seconds for which they hold; none, if the name has none.
    Addresses(Vec<Ipv4Addr>, u32),
    /// There is no such name.
    NoName,
    /// No rule is for it.
    Refused,
    /// It could not be found out.
    Failed,
}

/// Reads a question. What is none gets no answer.
pub(super) fn read_question(bytes: &[u8]) -> Option<Asked> {
    if bytes.len() > MAX_QUESTION {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    if packet.has_flags(PacketFlag::RESPONSE) || packet.opcode() != OPCODE::StandardQuery {
        return None;
    }
    let name = question.qname.to_string().to_ascii_lowercase();
    if !is_name(&name) || question.qclass != QCLASS::CLASS(CLASS::IN) {
        return None;
    }
    let addresses = question.qtype == QTYPE::TYPE(TYPE::A);
    Some(Asked {
        id: packet.id(),
        name,
        addresses,
    })
}

/// Writes the answer to a question, which is repeated as it was.
pub(super) fn write_reply(question: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).ok()?;
    let mut packet = Packet::new_reply(asked.id());
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE | (asked_flags(&asked)));
    *packet.rcode_mut() = match reply {
        Reply::Addresses(..) => RCODE::NoError,
        Reply::NoName => RCODE::NameError,
        Reply::Refused => RCODE::Refused,
        Reply::Failed => RCODE::ServerFailure,
    };
    let first = asked.questions.first()?.clone();
    if let Reply::Addresses(addresses, ttl) = reply {
        for address in addresses {
            let data = RData::A(A {
                address: address.to_bits(),
            });
            packet.answers.push(ResourceRecord::new(
                first.qname.clone(),
                CLASS::IN,
                *ttl,
                data,
            ));
        }
    }
    packet.questions.push(first);
    packet.build_bytes_vec_compressed().ok()
}

fn asked_flags(asked: &Packet<'_>) -> PacketFlag {
    match asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        true => PacketFlag::RECURSION_DESIRED,
        false => PacketFlag::empty(),
    }
}

/// A question for the host's resolver.
pub(super) fn write_question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    let question = Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().ok()
}

/// Reads its answer; what does not answer this question is none.
pub(super) fn read_answer(bytes: &[u8], id: u16, name: &str) -> Option<Reply> {
    let packet = Packet::parse(bytes).ok()?;
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    let same = |other: &Name<'_>, name: &str| other.to_string().eq_ignore_ascii_case(name);
    let answers = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && question.qtype == QTYPE::TYPE(TYPE::A)
        && same(&question.qname, name);
    if !answers {
        return None;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Some(Reply::NoName),
        _ => return Some(Reply::Failed),
    }
    let mut owner = name.to_owned();
    let mut least = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let alias = packet
            .answers
            .iter()
            .find_map(|record| match &record.rdata {
                RData::CNAME(to) if same(&record.name, &owner) => {
                    Some((to.0.to_string(), record.ttl))
                }
                _ => None,
            });
        let Some((to, ttl)) = alias else {
            break;
        };
        owner = to;
        least = least.min(ttl);
    }
    let mut addresses = Vec::new();
    for record in &packet.answers {
        if let RData::A(a) = &record.rdata
            && same(&record.name, &owner)
            && addresses.len() < MAX_ADDRESSES
        {
            addresses.push(Ipv4Addr::from_bits(a.address));
            least = least.min(record.ttl);
        }
    }
    Some(Reply::Addresses(addresses, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(records: Vec<ResourceRecord<'_>>, id: u16) -> Vec<u8> {
        let question = write_question(id, "a.example").unwrap();
        let asked = Packet::parse(&question).unwrap();
        let mut packet = Packet::new_reply(id);
        packet.questions = asked.questions.clone();
        packet.answers = records;
        packet.build_bytes_vec().unwrap()
    }

    fn record<'a>(name: &'a str, ttl: u32, data: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, data)
    }

    #[test]
    fn aliases_are_followed_and_strangers_are_not_taken() {
        let a = |address: [u8; 4]| {
            RData::A(A {
                address: u32::from_be_bytes(address),
            })
        };
        let alias = RData::CNAME(simple_dns::rdata::CNAME(Name::new("b.example").unwrap()));
        let records = vec![
            record("a.example", 30, alias),
            record("b.example", 60, a([203, 0, 113, 1])),
            record("c.example", 5, a([203, 0, 113, 2])),
        ];
        let bytes = answer(records, 7);
        let expected = Reply::Addresses(vec![Ipv4Addr::new(203, 0, 113, 1)], 30);
        assert_eq!(read_answer(&bytes, 7, "a.example"), Some(expected));
        assert_eq!(read_answer(&bytes, 8, "a.example"), None);
        assert_eq!(read_answer(&bytes, 7, "d.example"), None);
    }

    #[test]
    fn a_reply_repeats_its_question() {
        let question = write_question(9, "A.Example").unwrap();
        let asked = read_question(&question).unwrap();
        assert_eq!(
            asked,
            Asked {
                id: 9,
                name: "a.example".into(),
                addresses: true
            }
        );
        let addresses = vec![Ipv4Addr::new(203, 0, 113, 1)];
        let reply = write_reply(&question, &Reply::Addresses(addresses.clone(), 60)).unwrap();
        let read = read_answer(&reply, 9, "a.example").unwrap();
        assert_eq!(read, Reply::Addresses(addresses, 60));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let _ = read_question(&bytes);
            let _ = read_answer(&bytes, 0, "a.example");
            let _ = write_reply(&bytes, &Reply::Refused);
        }
    }
}
