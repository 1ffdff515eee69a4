//! The messages of etcd's API, generated from `proto/`. They stay inside this crate, but for
//! [`mvccpb::KeyValue`] and [`mvccpb::Event`], which are passed on as they are.

use std::fmt;

/// `authpb`: permissions.
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}

/// `mvccpb`: keys with their values, and what happens to them.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// `etcdserverpb`: requests, responses, and the methods that they belong to.
pub mod etcdserverpb {
    #![allow(missing_docs, clippy::enum_variant_names)]

    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

impl fmt::Debug for etcdserverpb::AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for etcdserverpb::AuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateResponse").field("header", &self.header).finish_non_exhaustive()
    }
}

impl fmt::Debug for etcdserverpb::AuthUserAddRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthUserAddRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::etcdserverpb::{AuthUserAddRequest, AuthenticateRequest, AuthenticateResponse};

    #[test]
    fn debug_of_messages_with_secrets_leaves_them_out() {
        let (name, secret) = (String::from("root"), String::from("hunter2"));
        let login = AuthenticateRequest { name: name.clone(), password: secret.clone() };
        let token = AuthenticateResponse { header: None, token: secret.clone() };
        let user = AuthUserAddRequest { name, password: secret, options: None };
        for text in [format!("{login:?}"), format!("{token:?}"), format!("{user:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
