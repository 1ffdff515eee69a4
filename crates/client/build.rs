//! Compiles `proto/` into message types, and each RPC into a constant that ties its path to the
//! types of its request and response. No protoc is needed: protox reads the files.

use std::error::Error;
use std::fmt::Write;

use prost_build::{Service, ServiceGenerator};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["rpc.proto"], ["proto"])?;
    prost_build::Config::new()
        .bytes([
            // What is large or many: taken out of the receive buffer without a copy.
            ".etcdserverpb.SnapshotResponse.blob",
            ".etcdserverpb.RangeRequest",
            ".etcdserverpb.PutRequest",
            ".etcdserverpb.DeleteRangeRequest",
            ".etcdserverpb.Compare",
            ".etcdserverpb.LeaseTimeToLiveResponse.keys",
            ".etcdserverpb.WatchCreateRequest",
            ".authpb.Permission",
            ".mvccpb",
        ])
        // Their `Debug`, in src/proto.rs, leaves the secrets out.
        .skip_debug([
            ".etcdserverpb.AuthenticateRequest",
            ".etcdserverpb.AuthenticateResponse",
            ".etcdserverpb.AuthUserAddRequest",
        ])
        .service_generator(Box::new(Methods))
        .compile_fds(files)?;
    Ok(())
}

/// Writes `pub const RANGE: Method<RangeRequest, RangeResponse> = …` for each RPC.
struct Methods;

impl ServiceGenerator for Methods {
    fn generate(&mut self, service: Service, out: &mut String) {
        for method in service.methods {
            let path = format!("/{}.{}/{}", service.package, service.proto_name, method.proto_name);
            writeln!(
                out,
                "pub const {}: crate::method::Method<{}, {}> = crate::method::Method::new({path:?});",
                method.name.to_uppercase(),
                method.input_type,
                method.output_type,
            )
            .expect("a String takes all");
        }
    }
}
