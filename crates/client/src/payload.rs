//! Typed values: written and read by derive, checked where they come from outside.

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use crate::{Record, RecordView, SendError, Ticket};

/// Why bytes are no value of a type, or a value cannot be bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The record has no value: it says that its key is gone.
    #[error("the record has no value")]
    Absent,
    /// The value is not what the type says, or cannot be written.
    #[error("{text}")]
    Form {
        /// What is wrong.
        text: String,
    },
}

/// Why a typed record was not taken. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendTypedError {
    /// The value cannot be written.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The send buffer has no room.
    #[error("the send buffer is full")]
    Full,
    /// The record cannot be sent at all.
    #[error(transparent)]
    Refused(corelane_client_core::SendError),
}

impl SendTypedError {
    /// Whether the same record may be taken later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Payload(_) => false,
            Self::Full => true,
            Self::Refused(error) => error.is_retriable(),
        }
    }
}

/// A type that values of records can be.
///
/// Every type that derives rkyv's traits is one, and is read in place, without a copy:
///
/// ```
/// use corelane::{Payload, rkyv};
///
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// #[rkyv(crate = corelane::rkyv)]
/// struct Input {
///     tick: u32,
///     buttons: u16,
/// }
///
/// let bytes = Input { tick: 7, buttons: 3 }.to_payload().unwrap();
/// let input = Input::read(&bytes).unwrap();
/// assert_eq!((input.tick.to_native(), input.buttons.to_native()), (7, 3));
/// assert!(Input::read(b"short").is_err(), "what comes from outside is checked");
/// ```
///
/// With the feature `serde`, `Json<T>` makes one of every type that derives serde's traits.
pub trait Payload {
    /// What it is read as: a view in place, or an owned value.
    type View<'a>;

    /// Its bytes.
    ///
    /// # Errors
    /// It cannot be written.
    fn to_payload(&self) -> Result<Vec<u8>, PayloadError>;

    /// Reads a value, checked: any bytes may be handed in.
    ///
    /// # Errors
    /// The bytes are no value of this type.
    fn read(bytes: &[u8]) -> Result<Self::View<'_>, PayloadError>;
}

impl<T> Payload for T
where
    T: Archive<Archived: 'static + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>>
        + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    type View<'a> = &'a T::Archived;

    fn to_payload(&self) -> Result<Vec<u8>, PayloadError> {
        let bytes = rkyv::to_bytes::<rancor::Error>(self).map_err(form)?;
        Ok(bytes.into_vec())
    }

    fn read(bytes: &[u8]) -> Result<&T::Archived, PayloadError> {
        rkyv::access::<T::Archived, rancor::Error>(bytes).map_err(form)
    }
}

fn form(error: impl std::fmt::Display) -> PayloadError {
    PayloadError::Form { text: error.to_string() }
}

/// A value as JSON, for types that derive serde's traits.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

#[cfg(feature = "serde")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Payload for Json<T> {
    type View<'a> = T;

    fn to_payload(&self) -> Result<Vec<u8>, PayloadError> {
        serde_json::to_vec(&self.0).map_err(form)
    }

    fn read(bytes: &[u8]) -> Result<T, PayloadError> {
        serde_json::from_slice(bytes).map_err(form)
    }
}

/// Reads the value of a record as a type.
pub trait ReadPayload<'a> {
    /// The value, checked.
    ///
    /// # Errors
    /// There is no value, or it is not one of this type.
    fn payload<P: Payload>(&self) -> Result<P::View<'a>, PayloadError>;
}

impl<'a> ReadPayload<'a> for RecordView<'a> {
    fn payload<P: Payload>(&self) -> Result<P::View<'a>, PayloadError> {
        P::read(self.value.ok_or(PayloadError::Absent)?)
    }
}

impl crate::Producer {
    /// As [`Self::send`], with a typed value in the place of the record's.
    ///
    /// # Errors
    /// See [`SendTypedError`]; nothing was sent.
    pub fn send_typed<P: Payload>(&self, value: &P, record: Record<'_>) -> Result<Ticket, SendTypedError> {
        let bytes = value.to_payload()?;
        self.send(record.value(&bytes)).map_err(|error| match error {
            SendError::Full(_) => SendTypedError::Full,
            SendError::Refused(error) => SendTypedError::Refused(error),
        })
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_back_and_anything_else_is_refused() {
        let bytes = Json(("a".to_owned(), 7)).to_payload().unwrap();
        assert_eq!(Json::<(String, u32)>::read(&bytes).unwrap(), ("a".to_owned(), 7));
        assert!(Json::<(String, u32)>::read(b"{").is_err());
    }
}
