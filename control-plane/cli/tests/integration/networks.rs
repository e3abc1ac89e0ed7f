//! Networks and security groups: what commands send, and what they show.

use serde_json::json;

use crate::{
    fake::{Fake, answer, page},
    things::{self, with},
};

#[tokio::test]
async fn a_network_is_made_and_changed_as_the_options_say() {
    let fake = Fake::start(|_, _| answer(200, &things::network("back"))).await;
    let create = ["network", "create", "back", "--subnet", "10.20.0.0/24", "--mode", "isolated", "--dns", "192.0.2.53"];
    let done = fake.run(&create).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "back: nat, 10.20.0.0/24\n"), "{done:?}");
    let sent =
        json!({"name": "back", "mode": "isolated", "subnet_v4": "10.20.0.0/24", "dns": ["192.0.2.53"], "labels": {}});
    assert_eq!((fake.lines()[0].as_str(), fake.seen()[0].json()), ("POST /v1/networks", sent));
    fake.run(&["network", "set", "back", "--mtu", "1400", "--no-dns"]).await;
    assert_eq!(fake.lines()[1], "PATCH /v1/networks/back");
    assert_eq!(fake.seen()[1].json(), json!({"dns": null, "mtu": 1400}));
    assert_eq!(fake.run(&["network", "create", "back", "--subnet", "10.20"]).await.code, Some(2));
}

#[tokio::test]
async fn rules_are_sent_and_shown_as_they_are_written() {
    let fake = Fake::start(|_, _| answer(200, &things::security_group("web"))).await;
    let rules = ["--allow", "in:tcp:22", "--allow", "in:any:group=web", "--allow", "out:any"];
    let done = fake.run(&[&["security-group", "create", "web"][..], &rules].concat()).await;
    let sent = json!({"name": "web", "labels": {}, "rules": [
        {"direction": "in", "protocol": "tcp", "ports": "22"},
        {"direction": "in", "protocol": "any", "from": "web"},
        {"direction": "out", "protocol": "any"}]});
    assert_eq!((done.code, fake.seen()[0].json()), (Some(0), sent), "{done:?}");
    for rule in ["in:tcp:22", "in:any:group=web", "out:any"] {
        assert!(done.out.lines().any(|line| line.starts_with("allows") && line.ends_with(rule)), "{}", done.out);
    }
    fake.run(&["sg", "set", "web", "--allow-nothing"]).await;
    assert_eq!(fake.seen()[1].json(), json!({"rules": []}));
    let wrong = fake.run(&["sg", "create", "web", "--allow", "tcp:22"]).await;
    assert!(wrong.code == Some(2) && wrong.err.contains("such as in:tcp:22"), "{wrong:?}");
}

#[tokio::test]
async fn deploy_sends_the_cards_that_its_options_describe() {
    let fake = Fake::start(|_, _| answer(200, &things::deployment("web"))).await;
    let deploy = ["deploy", "web", "--image", "debian", "--count", "1"];
    for (options, nics) in [
        (&[][..], json!(null)),
        (&["--no-network"], json!([])),
        (
            &["--publish", "80", "--publish", "30053:53/udp"],
            json!([{"network": "default", "ports": [
            {"port": 80, "protocol": "tcp"}, {"node_port": 30053, "port": 53, "protocol": "udp"}]}]),
        ),
        (
            &["--network", "back:10.20.0.5", "--network", "front", "--security-group", "web", "--publish", "80"],
            json!([
                {"network": "back", "address": "10.20.0.5", "security_groups": ["web"],
                    "ports": [{"port": 80, "protocol": "tcp"}]},
                {"network": "front", "security_groups": ["web"]},
            ]),
        ),
    ] {
        let before = fake.seen().len();
        let done = fake.run(&[&deploy[..], options].concat()).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(fake.seen()[before].json()["nics"], nics, "{options:?}");
    }
    for wrong in [&["--publish", "http"][..], &["--network", "back:here"], &["--no-network", "--network", "back"]] {
        assert_eq!(fake.run(&[&deploy[..], wrong].concat()).await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn the_addresses_of_an_instance_are_shown() {
    let fake = Fake::start(|seen, _| match seen.path.contains("limit=") {
        true => answer(200, &page(&[things::instance("web.0")], None)),
        false => answer(200, &things::instance("web.0")),
    })
    .await;
    let show = fake.run(&["instance", "show", "web.0", "-o", "wide"]).await.out;
    for part in ["back", "10.20.0.5", "52:00:00:01:00:05", "192.0.2.11:30080 to port 80/tcp"] {
        assert!(show.contains(part), "no {part} in\n{show}");
    }
    let ls = fake.run(&["instance", "ls", "--network", "back"]).await.out;
    assert!(ls.contains("ADDRESS") && ls.contains("10.20.0.5"), "{ls}");
    assert_eq!(fake.lines().pop().as_deref(), Some("GET /v1/instances?network=back&limit=1000"));
}

#[tokio::test]
async fn the_cards_of_a_deployment_are_shown_and_an_older_controller_has_none() {
    let nics = json!([{"network": things::NETWORK_ID, "network_name": "back", "address": null,
        "security_groups": [things::OTHER_ID], "security_group_names": ["web"],
        "ports": [{"port": 80, "protocol": "tcp"}], "new_field": [1]}]);
    for (fields, shown) in [(json!({ "nics": nics }), Some("back (web), published: 80/tcp")), (json!({}), None)] {
        let fake = Fake::start(move |_, _| answer(200, &with(things::deployment("web"), fields.clone()))).await;
        let done = fake.run(&["deployment", "show", "web"]).await;
        let line = done.out.lines().find_map(|line| line.strip_prefix("networks"));
        assert_eq!((done.code, line.map(str::trim)), (Some(0), shown), "{}", done.out);
    }
}
