//! Users, roles and whether they matter.

use crate::client::Client;
use crate::error::Error;
use crate::kv::Keys;
use crate::proto::authpb::{Permission, permission};
use crate::proto::etcdserverpb as pb;

/// Whether authentication is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthStatus {
    /// Whether it is.
    pub enabled: bool,
    /// Grows with every change of users and roles.
    pub auth_revision: u64,
}

/// What a role may do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read them.
    Read,
    /// Write them.
    Write,
    /// Both.
    ReadWrite,
}

impl From<Access> for permission::Type {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
            Access::ReadWrite => Self::Readwrite,
        }
    }
}

impl Client {
    /// Whether authentication is on. A read.
    ///
    /// # Errors
    /// [`Error::Rpc`] with [`Code::Unimplemented`](crate::Code::Unimplemented) from 3.4, which does
    /// not know this call.
    pub async fn auth_status(&self) -> Result<AuthStatus, Error> {
        let pb::AuthStatusResponse { enabled, auth_revision, .. } =
            self.read(&pb::AUTH_STATUS, pb::AuthStatusRequest {}).await?;
        Ok(AuthStatus { enabled, auth_revision })
    }

    /// Turns authentication on. A write.
    ///
    /// # Errors
    /// [`EtcdFault::NoRoot`](crate::EtcdFault::NoRoot) without a user root that has the role root.
    pub async fn auth_enable(&self) -> Result<(), Error> {
        self.write(&pb::AUTH_ENABLE, pb::AuthEnableRequest {}).await.map(drop)
    }

    /// Turns authentication off. A write.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn auth_disable(&self) -> Result<(), Error> {
        self.write(&pb::AUTH_DISABLE, pb::AuthDisableRequest {}).await.map(drop)
    }

    /// Adds a user, without any role. A write.
    ///
    /// # Errors
    /// [`EtcdFault::UserExists`](crate::EtcdFault::UserExists).
    pub async fn user_add(&self, user: &str, password: &str) -> Result<(), Error> {
        let (name, password) = (user.to_owned(), password.to_owned());
        let request = pb::AuthUserAddRequest { name, password, options: None };
        self.write(&pb::USER_ADD, request).await.map(drop)
    }

    /// Gives a user a role. A write.
    ///
    /// # Errors
    /// [`EtcdFault::UserNotFound`](crate::EtcdFault::UserNotFound),
    /// [`EtcdFault::RoleNotFound`](crate::EtcdFault::RoleNotFound).
    pub async fn user_grant_role(&self, user: &str, role: &str) -> Result<(), Error> {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        self.write(&pb::USER_GRANT_ROLE, request).await.map(drop)
    }

    /// Adds a role that may do nothing yet. A write.
    ///
    /// # Errors
    /// [`EtcdFault::RoleExists`](crate::EtcdFault::RoleExists).
    pub async fn role_add(&self, role: &str) -> Result<(), Error> {
        self.write(&pb::ROLE_ADD, pb::AuthRoleAddRequest { name: role.to_owned() }).await.map(drop)
    }

    /// Lets a role do something with keys. A write.
    ///
    /// # Errors
    /// [`EtcdFault::RoleNotFound`](crate::EtcdFault::RoleNotFound).
    pub async fn role_grant(&self, role: &str, access: Access, keys: Keys) -> Result<(), Error> {
        let perm_type = permission::Type::from(access).into();
        let Keys { key, range_end } = keys;
        let request = pb::AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(Permission { perm_type, key, range_end }),
        };
        self.write(&pb::ROLE_GRANT_PERMISSION, request).await.map(drop)
    }
}
