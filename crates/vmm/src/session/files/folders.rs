//! What is there, and how it is changed.

use std::time::Duration;

use firelane_guest_proto::files::{
    Entries, FileStat, ListDirSpec, MakeDirSpec, MakeLinkSpec, MoveSpec, RemoveSpec, StatSpec,
};
use firelane_guest_proto::frame::Kind;
use firelane_guest_proto::message::to_frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{FILE_TIMEOUT, check, done, message};
use crate::session::{Session, SessionError, Stream};

/// How long the guest may take to remove a tree: a million files, emulated.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(900);

impl Session {
    /// What is at a path. Links are not followed.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if nothing is, or the path is not in one of the folders.
    pub async fn stat(&self, path: &str) -> Result<FileStat, SessionError> {
        let spec = StatSpec { path: path.into() };
        let stat = self.ask(Kind::Stat, &spec, Kind::FileStat).await?;
        check::stat(&stat)?;
        Ok(stat)
    }

    /// A page of a folder. The next one begins after the last name of this one.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if there is no such folder.
    pub async fn list_dir(&self, spec: &ListDirSpec) -> Result<Entries, SessionError> {
        let page = self.ask(Kind::ListDir, spec, Kind::Entries).await?;
        check::page(spec, &page)?;
        Ok(page)
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if the name is taken, or the folder above it is missing.
    pub async fn make_dir(&self, spec: &MakeDirSpec) -> Result<(), SessionError> {
        self.change(Kind::MakeDir, spec, FILE_TIMEOUT).await
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if the name is taken.
    pub async fn make_link(&self, spec: &MakeLinkSpec) -> Result<(), SessionError> {
        self.change(Kind::MakeLink, spec, FILE_TIMEOUT).await
    }

    /// Gives a file, a folder or a link another path.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if there is no such thing, or the name is taken.
    pub async fn move_to(&self, spec: &MoveSpec) -> Result<(), SessionError> {
        self.change(Kind::Move, spec, FILE_TIMEOUT).await
    }

    /// Removes a file, a link or a folder. A recursive removal that fails has removed a part.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if there is no such thing, or a folder is not empty.
    pub async fn remove(&self, spec: &RemoveSpec) -> Result<(), SessionError> {
        self.change(Kind::Remove, spec, REMOVE_TIMEOUT).await
    }

    /// Sends a request without waiting for the guest's word that it is carried out.
    pub(in crate::session) async fn ahead(
        &self,
        kind: Kind,
        spec: &impl Serialize,
    ) -> Result<Stream, SessionError> {
        let frame = to_frame(0, kind, spec).map_err(|_| SessionError::TooLarge)?;
        self.shared.open(frame).await
    }

    async fn change(
        &self,
        kind: Kind,
        spec: &impl Serialize,
        limit: Duration,
    ) -> Result<(), SessionError> {
        let changed = async { done(&mut self.ahead(kind, spec).await?).await };
        let changed = timeout(limit, changed).await;
        changed.map_err(|_| SessionError::Silent(limit))?
    }

    /// Sends a request that is answered with one message.
    async fn ask<T: DeserializeOwned>(
        &self,
        kind: Kind,
        spec: &impl Serialize,
        answer: Kind,
    ) -> Result<T, SessionError> {
        let asked = async {
            let mut stream = self.ahead(kind, spec).await?;
            let answer = message(&mut stream, answer).await?;
            done(&mut stream).await?;
            Ok(answer)
        };
        let asked = timeout(FILE_TIMEOUT, asked).await;
        asked.map_err(|_| SessionError::Silent(FILE_TIMEOUT))?
    }
}
