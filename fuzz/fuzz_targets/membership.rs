//! Any bytes as a member's JSON, and any text as an initial cluster and as a URL: what is accepted
//! reads the same once written, and its members have ids of their own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_etcd::{InitialCluster, Member, Url};
use std::collections::BTreeSet;

fuzz_target!(|bytes: &[u8]| {
    if let Some(member) = Member::parse_json(bytes) {
        check_json(&member);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(url) = Url::parse(text) {
        assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(&url));
        if let Some((host, port)) = url.host_and_port() {
            assert!(!host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()), "{url}");
        }
    }
    if let Ok(initial) = InitialCluster::parse(text) {
        assert_eq!(InitialCluster::parse(&initial.to_string()).as_ref(), Ok(&initial));
        for (name, urls) in initial.iter() {
            assert_eq!(initial.peer_urls(name), Some(urls));
        }
        if let Ok(cluster) = initial.with_token("token") {
            let ids: BTreeSet<_> = cluster.members.iter().map(|member| member.id).collect();
            assert_eq!(ids.len(), initial.iter().count());
            cluster.members.iter().for_each(check_json);
        }
    }
});

fn check_json(member: &Member) {
    assert_eq!(Member::parse_json(member.to_json().as_bytes()).as_ref(), Some(member));
}
