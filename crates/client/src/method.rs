//! An RPC as a value: its path, tied to the types of its request and its response.

use std::fmt;
use std::marker::PhantomData;

use http::uri::PathAndQuery;

/// The largest answer that is taken unless a method needs more. Bounds what a peer that is not an
/// etcd, or a broken one, can make us allocate; the largest of these answers (a member list, a
/// status) is some kilobytes.
const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// One method of etcd's API.
pub struct Method<Q, P> {
    path: &'static str,
    response_bytes_max: usize,
    types: PhantomData<fn(Q) -> P>,
}

impl<Q, P> Method<Q, P> {
    /// The method at `path`, `/package.Service/Method`.
    pub const fn new(path: &'static str) -> Self {
        Self { path, response_bytes_max: RESPONSE_BYTES_MAX, types: PhantomData }
    }

    /// The same method, taking answers of up to `bytes`.
    pub const fn up_to(self, bytes: usize) -> Self {
        Self { response_bytes_max: bytes, ..self }
    }

    /// Its name without the service: `Range`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('/').map_or(self.path, |(_, name)| name)
    }

    pub(crate) fn path(&self) -> PathAndQuery {
        PathAndQuery::from_static(self.path)
    }

    pub(crate) fn response_bytes_max(&self) -> usize {
        self.response_bytes_max
    }
}

impl<Q, P> fmt::Debug for Method<Q, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}
