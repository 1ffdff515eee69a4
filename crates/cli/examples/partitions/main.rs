//! Real clusters whose members are on hosts with a network of their own, reached over a real sshd, while cables are pulled
//! and commands are killed. `cargo xtask partitions` builds and runs it; a line is printed of what was seen to hold.

mod scene;

use rekindle_testkit::etcd::Host;
use scene::{Scene, told};
use std::time::Instant;

type Play = fn(&Scene);

/// Nobody counts more lines of a command.
const LINES_MAX: usize = 60;

fn main() {
    let program = std::env::args().nth(1).expect("partitions REKINDLE");
    let began = Instant::now();
    let scenes: [(&str, Play); 8] = [
        ("one of three is cut off", one_is_cut_off),
        ("the leader is cut off", the_leader_is_cut_off),
        ("nobody hears anybody", nobody_hears_anybody),
        ("all disks are gone", all_disks_are_gone),
        ("recover is killed after each line that it says", recover_is_killed),
        ("a host is cut off after each line that recover says", a_host_is_cut_off_from_recover),
        ("a host is cut off after each line that its replace says", a_host_is_cut_off_from_replace),
        ("replace is killed after each line that it says", replace_is_killed),
    ];
    let scene = Scene::new(&program, 3);
    for (name, play) in scenes {
        eprintln!("{:6.1} s  {name}", began.elapsed().as_secs_f64());
        play(&scene);
    }
    drop(scene);
    eprintln!("{:6.1} s  two of five are parted from three", began.elapsed().as_secs_f64());
    two_are_parted_from_three(&Scene::new(&program, 5));
}

/// From both sides: who is alone does nothing, and nothing that is typed there makes a second cluster.
fn one_is_cut_off(scene: &Scene) {
    scene.fill(10);
    scene.save();
    scene.network.cut(2);
    scene.put_on(&[0, 1], 5);
    let seen = told(&scene.here(&["check"]));
    assert!(seen.contains("2 of 3 voting members serve"), "{seen}");
    let began = Instant::now();
    let alone = told(&scene.on(2, &["check"]));
    assert!(alone.contains("0 of 3 voting members serve"), "{alone}");
    assert!(began.elapsed().as_secs_f64() < 6.0, "{:?}", began.elapsed());
    println!(
        "check of one that is cut off: it does not serve, from its side; two of three serve, from the other"
    );
    for words in [&["recover", &scene.archive(), "--yes"][..], &["recover", "--yes"]] {
        let refused = scene.on(2, words);
        assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
        assert!(told(&refused).contains("--without m0 --without m1"), "{}", told(&refused));
    }
    println!("recover on a host that is cut off: refused; it names the two that may go on writing");
    let failed = scene.on(2, &["replace", "--yes"]);
    assert!(!failed.status.success(), "{}", told(&failed));
    scene.network.mend(2);
    scene.is_whole(15);
    println!(
        "replace on a host that is cut off: nothing is changed; once the cable is back all three are one"
    );
}

fn the_leader_is_cut_off(scene: &Scene) {
    let leader = scene.leader();
    scene.network.cut(leader);
    let others: Vec<_> = (0..3).filter(|number| *number != leader).collect();
    scene.put_on(&others, 5);
    let failed = scene.recover(&[&scene.archive()]).output().unwrap();
    assert!(!failed.status.success(), "{}", told(&failed));
    scene.network.mend(leader);
    scene.is_whole(20);
    println!(
        "the leader is cut off: the others write on, and recover changes nothing where it cannot reach a host"
    );
    let refused = scene.recover(&[&scene.archive()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
}

/// All run, all disks are good, and there is no quorum: nothing that recover could do, and nothing that it breaks.
fn nobody_hears_anybody(scene: &Scene) {
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        scene.network.part(one, other);
    }
    scene.wait_until_nobody_serves();
    let words = ["--id=apart", "--serves-within=5s", &scene.archive()];
    let failed = scene.recover(&words).output().unwrap();
    let said = told(&failed);
    assert!(!failed.status.success() && said.contains("nothing is lost"), "{said}");
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        scene.network.join(one, other);
    }
    scene.is_whole(20);
    println!(
        "no member hears another: recover starts them, restores nothing, and says that they do not serve"
    );
}

fn all_disks_are_gone(scene: &Scene) {
    scene.save();
    scene.hosts.iter().for_each(Host::lose);
    scene.done(scene.recover(&[&scene.archive()]));
    scene.is_whole(20);
    println!("all disks gone: brought back from the archive, on three hosts over ssh");
}

/// ssh may leave what it has started running on a host: the next run meets it.
fn recover_is_killed(scene: &Scene) {
    let mut killed = 0;
    for lines in 1..LINES_MAX {
        scene.hosts.iter().for_each(Host::lose);
        let id = format!("--id=k{lines}");
        let words = [&*id, &scene.archive()];
        let was_killed = scene.after(scene.recover(&words), lines, |child| child.kill().unwrap());
        scene.done(scene.recover(&words));
        scene.is_whole(20);
        if !was_killed {
            break;
        }
        killed += 1;
    }
    assert!(killed > 5, "{killed}");
    println!("recover killed after each of {killed} lines: the same again brings it back");
}

fn a_host_is_cut_off_from_recover(scene: &Scene) {
    let mut cut = 0;
    for lines in 1..LINES_MAX {
        scene.hosts.iter().for_each(Host::lose);
        let id = format!("--id=c{lines}");
        let words = [&*id, "--serves-within=10s", &scene.archive()];
        let was_cut = scene.after(scene.recover(&words), lines, |_| scene.network.cut(1));
        scene.network.mend(1);
        // It may have brought it back before it missed anybody.
        scene.done_or_served(scene.recover(&words));
        scene.is_whole(20);
        if !was_cut {
            break;
        }
        cut += 1;
    }
    assert!(cut > 5, "{cut}");
    println!("a host cut off after each of {cut} lines of recover: the same again brings all back");
}

fn a_host_is_cut_off_from_replace(scene: &Scene) {
    let mut cut = 0;
    for lines in 1..LINES_MAX {
        scene.hosts.host(1).lose();
        let replace = || scene.command_on(1, &["replace", "--yes"]);
        let was_cut =
            scene.after_for(replace(), lines, |_| scene.network.cut(1), |_| scene.network.mend(1));
        // It may have ended all the same.
        scene.done_or_served(replace());
        scene.is_whole(20);
        if !was_cut {
            break;
        }
        cut += 1;
    }
    assert!(cut > 2, "{cut}");
    println!("a host cut off after each of {cut} lines of its replace: the same again ends it");
}

fn replace_is_killed(scene: &Scene) {
    let mut killed = 0;
    for lines in 1..LINES_MAX {
        scene.hosts.host(1).lose();
        let replace = || scene.command_on(1, &["replace", "--yes"]);
        let was_killed = scene.after(replace(), lines, |child| child.kill().unwrap());
        // It may have ended all the same.
        scene.done_or_served(replace());
        scene.is_whole(20);
        if !was_killed {
            break;
        }
        killed += 1;
    }
    assert!(killed > 2, "{killed}");
    println!("replace killed after each of {killed} lines: the same again ends it");
}

fn two_are_parted_from_three(scene: &Scene) {
    scene.fill(10);
    scene.save();
    let pairs: Vec<_> = [0, 1, 2].into_iter().flat_map(|one| [(one, 3), (one, 4)]).collect();
    pairs.iter().for_each(|(one, other)| scene.network.part(*one, *other));
    scene.put_on(&[0, 1, 2], 5);
    // Whoever sees both sides.
    let seen = told(&scene.here(&["check"]));
    assert!(seen.contains("3 of 5 voting members serve"), "{seen}");
    let refused = scene.recover(&[&scene.archive()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    // Whoever sees the two.
    let address = |host| format!("--host={}", scene.network.address(host));
    let two = [address(3), address(4), scene.archive()];
    let mut minority = scene.recover_on(3, &two.each_ref().map(String::as_str));
    let refused = minority.output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(
        told(&refused).contains("--without m0 --without m1 --without m2"),
        "{}",
        told(&refused)
    );
    pairs.iter().for_each(|(one, other)| scene.network.join(*one, *other));
    scene.is_whole(15);
    println!(
        "two of five parted from three: recover is refused on either side, and all are one afterwards"
    );
}
