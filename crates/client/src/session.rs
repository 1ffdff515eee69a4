//! A member's token: got when first needed, renewed when etcd no longer knows it.
//!
//! Where authentication turns out to be off, calls go on without a token, as etcd's own client does
//! (`client/v3/client.go`, `getToken`); should it be turned on later, etcd asks for a user, and a
//! token is got then.

use std::fmt;

use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataValue};

use crate::config::Credentials;
use crate::error::{Error, EtcdFault};
use crate::member::Member;
use crate::proto::etcdserverpb::{AUTHENTICATE, AuthenticateRequest};

/// What etcd gave for user and password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(MetadataValue<Ascii>);

impl Token {
    pub(crate) fn metadata(&self) -> MetadataValue<Ascii> {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who we are to one member.
pub(crate) struct Session {
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Nothing was asked yet.
    New,
    /// The answer: a token, or none where authentication is off.
    Known(Option<Token>),
}

impl Session {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, state: Mutex::new(State::New) }
    }

    /// The token to use, asking for one if none was asked for yet.
    pub(crate) async fn token(&self, member: &Member) -> Result<Option<Token>, Error> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let mut state = self.state.lock().await;
        match &*state {
            State::Known(token) => Ok(token.clone()),
            State::New => log_in(member, credentials, &mut state).await,
        }
    }

    /// A token other than `stale`. Of calls that find theirs stale at once, one logs in.
    pub(crate) async fn renewed(
        &self,
        member: &Member,
        stale: Option<Token>,
    ) -> Result<Option<Token>, Error> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let mut state = self.state.lock().await;
        match &*state {
            State::Known(token) if *token != stale => Ok(token.clone()),
            _ => log_in(member, credentials, &mut state).await,
        }
    }

    /// A token that was got just now.
    pub(crate) async fn fresh(&self, member: &Member) -> Result<Option<Token>, Error> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let mut state = self.state.lock().await;
        log_in(member, credentials, &mut state).await
    }
}

async fn log_in(
    member: &Member,
    credentials: &Credentials,
    state: &mut State,
) -> Result<Option<Token>, Error> {
    let request = AuthenticateRequest {
        name: credentials.user().to_owned(),
        password: credentials.password().to_owned(),
    };
    let within = member.timeouts().command;
    let token = match member.call_once(within, &AUTHENTICATE, request, None).await {
        Ok(answer) => Some(read_token(member, answer.token)?),
        Err(error) if error.etcd_fault() == Some(EtcdFault::AuthNotEnabled) => None,
        Err(error) => return Err(error),
    };
    *state = State::Known(token.clone());
    Ok(token)
}

fn read_token(member: &Member, text: String) -> Result<Token, Error> {
    let mut value = MetadataValue::try_from(text).map_err(|_| Error::Protocol {
        endpoint: member.endpoint().clone(),
        call: AUTHENTICATE.name(),
        what: "a token that is not ASCII",
    })?;
    value.set_sensitive(true);
    Ok(Token(value))
}
