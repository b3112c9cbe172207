//! The rights of the programs' user, for one thread and for a while.

use std::marker::PhantomData;

use firelane_guest_proto::message::{Refused, RefusedCode};

use crate::exec::{USER_ID, refused};

/// While this lives, the thread opens, makes and removes files as the programs' user. Unlike other
/// ways to change the user, this one does not let programs send signals to the thread.
///
/// Source: setfsuid(2); capabilities(7), "Effect of user ID changes on capabilities".
pub(crate) struct AsUser {
    before: Ids,
    /// It is about this thread.
    _not_send: PhantomData<*const ()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Ids {
    user: u32,
    group: u32,
}

impl AsUser {
    /// Takes on the user's rights.
    pub(crate) fn begin() -> Result<AsUser, Refused> {
        let user = Ids {
            user: USER_ID,
            group: USER_ID,
        };
        let as_user = AsUser {
            before: set(user),
            _not_send: PhantomData,
        };
        // The calls tell no failure: setting the same again tells what is set.
        if set(user) == user {
            Ok(as_user)
        } else {
            let message = "cannot act as the programs' user".into();
            Err(refused(RefusedCode::Internal, message))
        }
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        set(self.before);
    }
}

#[expect(unsafe_code, reason = "rustix has no safe form of these calls")]
/// Sets both; gives what was set before.
fn set(ids: Ids) -> Ids {
    // SAFETY: both calls take and give numbers, and change only the calling thread's credentials.
    let (group, user) = unsafe { (libc::setfsgid(ids.group), libc::setfsuid(ids.user)) };
    Ids {
        user: user.cast_unsigned(),
        group: group.cast_unsigned(),
    }
}
