//! What a record may hold. Callers have their own, tighter limits: these keep a fault of theirs from
//! filling the database.

use super::error::DbError;

/// Longest id or state.
pub const MAX_ID_BYTES: usize = 64;
/// Longest name of a tenant.
pub const MAX_TENANT_BYTES: usize = 128;
/// Longest text that a person wrote, or that says why.
pub const MAX_SHORT_BYTES: usize = 1024;
/// Longest column of JSON: what one message of the Bus carries.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
/// Longest blob: the events of a run, the body of an answer.
pub const MAX_BLOB_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn id(what: &'static str, value: &str) -> Result<(), DbError> {
    let fits = (1..=MAX_ID_BYTES).contains(&value.len());
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if fits && value.bytes().all(letter) {
        return Ok(());
    }
    let value = value.chars().take(MAX_ID_BYTES).collect();
    Err(DbError::BadId { what, value })
}

/// A tenant has the name that an operator gave it, such as "Build farm".
pub(super) fn tenant(name: &str) -> Result<(), DbError> {
    let fits = (1..=MAX_TENANT_BYTES).contains(&name.len());
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let value = name.chars().take(MAX_TENANT_BYTES).collect();
    Err(DbError::BadTenant { value })
}

pub(super) fn size(what: &'static str, size: usize, cap: usize) -> Result<(), DbError> {
    if size > cap {
        return Err(DbError::TooLarge { what, size, cap });
    }
    Ok(())
}

pub(super) fn json(what: &'static str, text: &str) -> Result<(), DbError> {
    size(what, text.len(), MAX_JSON_BYTES)
}

pub(super) fn short(what: &'static str, text: &str) -> Result<(), DbError> {
    size(what, text.len(), MAX_SHORT_BYTES)
}

pub(super) fn blob(what: &'static str, bytes: &[u8]) -> Result<(), DbError> {
    size(what, bytes.len(), MAX_BLOB_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        for good in ["a", "run_01J.x-Y", &"x".repeat(64)] {
            assert!(id("run", good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a\0", "ä", "a\n", "'", &"x".repeat(65)] {
            assert!(
                matches!(id("run", bad), Err(DbError::BadId { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn tenants_are_short_and_printable() {
        for good in ["a", "Build farm", "é", &"x".repeat(128)] {
            assert!(tenant(good).is_ok(), "{good}");
        }
        for bad in ["", "a\0", "a\n", &"x".repeat(129)] {
            assert!(
                matches!(tenant(bad), Err(DbError::BadTenant { .. })),
                "{bad}"
            );
        }
    }
}
