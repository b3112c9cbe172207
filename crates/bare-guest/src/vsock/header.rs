//! The header that each packet of a vsock device starts with.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, section 5.10.6, "Device Operation".

/// Bytes of the header.
pub const HEADER_BYTES: usize = 44;
/// Type of a packet of a stream socket.
pub(super) const STREAM: u16 = 1;

pub(super) const OP_REQUEST: u16 = 1;
pub(super) const OP_RESPONSE: u16 = 2;
pub(super) const OP_RST: u16 = 3;
pub(super) const OP_SHUTDOWN: u16 = 4;
pub(super) const OP_RW: u16 = 5;
pub(super) const OP_CREDIT_UPDATE: u16 = 6;
pub(super) const OP_CREDIT_REQUEST: u16 = 7;

/// Of a shutdown: the sender receives no more, and sends no more.
pub(super) const SHUTDOWN_BOTH: u32 = 3;

/// A header; all integers are little-endian in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of payload.
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Room that the sender has for what it receives, in bytes.
    pub(super) buf_alloc: u32,
    /// Bytes that it has taken out of there so far, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Header and payload of a packet, if it is one.
    pub(super) fn parse(packet: &[u8]) -> Option<(Header, &[u8])> {
        let (bytes, payload) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let header = Header {
            src_cid: u64::from_le_bytes(field(bytes, 0)?),
            dst_cid: u64::from_le_bytes(field(bytes, 8)?),
            src_port: u32::from_le_bytes(field(bytes, 16)?),
            dst_port: u32::from_le_bytes(field(bytes, 20)?),
            len: u32::from_le_bytes(field(bytes, 24)?),
            kind: u16::from_le_bytes(field(bytes, 28)?),
            op: u16::from_le_bytes(field(bytes, 30)?),
            flags: u32::from_le_bytes(field(bytes, 32)?),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)?),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)?),
        };
        let payload = payload.get(..usize::try_from(header.len).ok()?)?;
        Some((header, payload))
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
