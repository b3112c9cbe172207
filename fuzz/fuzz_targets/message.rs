//! Payloads of the session protocol's frames, as every message there is. What is decoded encodes and
//! decodes to itself.
#![no_main]

use std::fmt::Debug;

use firelane_guest_proto::files::{
    Entries, Events, FileStat, GetRangeSpec, ListDirSpec, MakeDirSpec, MakeLinkSpec, MoveSpec,
    RemoveSpec, StatSpec, WatchSpec,
};
use firelane_guest_proto::frame::{Frame, Kind};
use firelane_guest_proto::message::{
    AttachSpec, Attached, ExecSpec, FileInfo, Forget, FreezeSpec, GetSpec, Goodbye, Hello, LaunchSpec,
    Listing, Outcome, PtySize, PutSpec, Refused, ThawSpec, Welcome, from_frame, to_frame,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(payload: &[u8]) {
    // Exec has the largest cap: every message fits it.
    let frame = Frame::new(1, Kind::Exec, payload.to_vec());
    if let Ok(message) = from_frame::<T>(&frame) {
        let again = to_frame(1, Kind::Exec, &message).expect("within the cap");
        assert_eq!(from_frame::<T>(&again).as_ref(), Ok(&message));
    }
}

fuzz_target!(|payload: &[u8]| {
    check::<Hello>(payload);
    check::<Welcome>(payload);
    check::<Goodbye>(payload);
    check::<ExecSpec>(payload);
    check::<Refused>(payload);
    check::<Outcome>(payload);
    check::<PutSpec>(payload);
    check::<GetSpec>(payload);
    check::<FileInfo>(payload);
    check::<PtySize>(payload);
    check::<ListDirSpec>(payload);
    check::<Entries>(payload);
    check::<StatSpec>(payload);
    check::<FileStat>(payload);
    check::<GetRangeSpec>(payload);
    check::<MakeDirSpec>(payload);
    check::<MakeLinkSpec>(payload);
    check::<MoveSpec>(payload);
    check::<RemoveSpec>(payload);
    check::<WatchSpec>(payload);
    check::<Events>(payload);
    check::<FreezeSpec>(payload);
    check::<ThawSpec>(payload);
    check::<LaunchSpec>(payload);
    check::<AttachSpec>(payload);
    check::<Attached>(payload);
    check::<Forget>(payload);
    check::<Listing>(payload);
});
