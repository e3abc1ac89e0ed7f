//! Reading little-endian structures from bytes that were not checked. Every access can fail, none can panic.

use crate::{Corrupt, ObjectName};

/// Takes fields from the front of bytes. `what` names the structure in errors.
pub(crate) struct Reader<'a> {
    what: &'static str,
    whole: usize,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { what, whole: bytes.len(), bytes }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let Some((head, rest)) = self.bytes.split_at_checked(len) else {
            let needed = (self.whole - self.bytes.len() + len) as u64;
            return Err(Corrupt::Short { what: self.what, needed, got: self.whole as u64 });
        };
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Corrupt> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Corrupt> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Corrupt> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Corrupt> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn name(&mut self) -> Result<ObjectName, Corrupt> {
        Ok(ObjectName::from_bytes(self.array()?))
    }

    /// A name. 32 zero bytes stand for none.
    pub(crate) fn optional_name(&mut self) -> Result<Option<ObjectName>, Corrupt> {
        let name = self.array()?;
        Ok((name != [0; 32]).then(|| ObjectName::from_bytes(name)))
    }

    pub(crate) fn magic<const N: usize>(&mut self, magic: [u8; N]) -> Result<(), Corrupt> {
        if self.array::<N>()? == magic { Ok(()) } else { Err(Corrupt::Magic { what: self.what }) }
    }

    /// Reserved bytes, which every release so far writes as zero.
    pub(crate) fn zeros(&mut self, len: usize, field: &'static str) -> Result<(), Corrupt> {
        match self.take(len)?.iter().find(|b| **b != 0) {
            None => Ok(()),
            Some(b) => Err(Corrupt::Field { what: self.what, field, got: u64::from(*b) }),
        }
    }

    pub(crate) fn field(&self, field: &'static str, got: impl Into<u64>) -> Corrupt {
        Corrupt::Field { what: self.what, field, got: got.into() }
    }

    /// Compares the next field with the CRC-32C of the bytes that it covers.
    pub(crate) fn crc_of(&mut self, covered: &[u8]) -> Result<(), Corrupt> {
        let got = self.u32()?;
        let expected = crc32c::crc32c(covered);
        if got == expected { Ok(()) } else { Err(Corrupt::Checksum { what: self.what, expected, got }) }
    }

    pub(crate) fn finish(self) -> Result<(), Corrupt> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(Corrupt::Trailing { what: self.what, bytes: self.bytes.len() as u64 })
        }
    }
}
