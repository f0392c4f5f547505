//! A container of a playground that is stopped.

use std::process::Stdio;

use super::Site;
use crate::support::{
    ENDPOINTS,
    engine::{BUSYBOX, Engine},
};

#[test]
fn twenty_clients_of_a_stopped_playgrounds_container_wake_it_once() {
    let Some(engine) = Engine::here() else { return };
    for endpoint in ENDPOINTS {
        let site = Site::new(engine, endpoint);
        let container = engine.run("wake", &["--network", "none"], BUSYBOX, &[]);
        site.world.stop_elsewhere(&site.play);
        let host = site.host(&container.name);
        let all: Vec<_> = (0..20)
            .map(|_| {
                let mut client = site.client("ssh", &[&host, "echo in"]);
                client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in all {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.stdout, b"in\n", "{output:?}");
        }
        assert_eq!(site.world.restarts(&site.play), 1);
        site.leaves_nothing(&container);
    }
}

/// The playground is woken, as it is for a machine; the container is not started.
#[test]
fn a_stopped_container_of_a_stopped_playground_is_told() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("wake", &["--network", "none"], BUSYBOX, &[]);
    container.docker("kill");
    site.world.stop_elsewhere(&site.play);
    let said = site.ssh(&[&site.host(&container.name), "true"]).failed(255);
    assert!(said.contains(&container.name) && said.contains("137"), "{said}");
    assert_eq!(container.inspect("{{.State.Status}}"), "exited");
    assert_eq!(site.world.restarts(&site.play), 1);
}
