//! A client's frames: right ones, and wrong ones of every kind.

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// How a frame gives its length.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    /// In 16 bits.
    Medium(u16),
    /// In 64 bits.
    Long(u64),
}

/// A frame to send: a right one, until it is made wrong.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    first: u8,
    mask: Option<[u8; 4]>,
    length: Option<Length>,
    payload: Vec<u8>,
}

impl Out {
    /// A masked, final frame.
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            first: 0x80 | opcode,
            mask: Some([0x9a, 0x3c, 0x00, 0xff]),
            length: None,
            payload: payload.as_ref().to_vec(),
        }
    }

    /// Not final.
    pub(crate) fn part(mut self) -> Self {
        self.first &= 0x7f;
        self
    }

    /// With reserved bits: 1 to 7.
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    /// With this mask, or unmasked.
    pub(crate) fn mask(mut self, mask: Option<[u8; 4]>) -> Self {
        self.mask = mask;
        self
    }

    /// With this length, whatever the payload's is.
    pub(crate) fn length(mut self, length: Length) -> Self {
        self.length = Some(length);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.first];
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match (self.length, self.payload.len()) {
            (Some(Length::Medium(length)), _) => push_length(&mut out, masked | 126, &length.to_be_bytes()),
            (Some(Length::Long(length)), _) => push_length(&mut out, masked | 127, &length.to_be_bytes()),
            (None, length @ 0..=125) => out.push(masked | length as u8),
            (None, length @ 126..=0xffff) => {
                push_length(&mut out, masked | 126, &(length as u16).to_be_bytes())
            }
            (None, length) => push_length(&mut out, masked | 127, &(length as u64).to_be_bytes()),
        }
        out.extend(self.mask.iter().flatten());
        let mask = self.mask.unwrap_or_default();
        out.extend(
            self.payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        out
    }
}

fn push_length(out: &mut Vec<u8>, short: u8, length: &[u8]) {
    out.push(short);
    out.extend_from_slice(length);
}

pub(crate) fn text(payload: impl AsRef<[u8]>) -> Out {
    Out::new(TEXT, payload)
}

pub(crate) fn binary(payload: impl AsRef<[u8]>) -> Out {
    Out::new(BINARY, payload)
}

/// A continuation; final unless made a `part`.
pub(crate) fn more(payload: impl AsRef<[u8]>) -> Out {
    Out::new(CONTINUATION, payload)
}

pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Out {
    Out::new(PING, payload)
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Out {
    Out::new(PONG, payload)
}

pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Out {
    Out::new(CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

/// The bytes of frames, one behind the other.
pub(crate) fn bytes(frames: &[Out]) -> Vec<u8> {
    frames.iter().flat_map(Out::bytes).collect()
}
