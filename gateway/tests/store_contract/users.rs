//! Users over all rooms and nodes.

use std::time::Duration;

use roomgate::store::{Control, Holder, OperatorCommand, Standing, StoreLimits};
use roomgate_shared::protocol::{Lane, config::Rate};

use super::harness::*;

/// Three nodes, or the one there is.
async fn nodes<B: Backend>() -> Apart<B> {
    apart::<B>(StoreLimits::default()).await
}

pub(crate) async fn a_budget_is_one_over_all_nodes<B: Backend>() {
    let nodes = nodes::<B>().await;
    let rate = Rate {
        per_second: 10.0,
        burst: 12.0,
    };
    let ada = user("{ada} \"é\"");
    let spend = async |node: usize, want: u64| {
        let users = nodes.node(node).store.users();
        users.spend(&ada, Lane::Messages, want, rate).await.unwrap()
    };
    let began = nodes.node(0).store.now_ms();
    let mut granted = 0;
    for node in 0..6 {
        granted += spend(node, 4).await.granted;
    }
    let refused = spend(1, 100).await;
    assert!(granted + refused.granted >= 12);
    // Another lane and another user have their own.
    let users = nodes.node(0).store.users();
    assert_eq!(users.spend(&ada, Lane::State, 4, rate).await.unwrap().granted, 4);
    assert_eq!(
        users
            .spend(&user("bob"), Lane::Messages, 4, rate)
            .await
            .unwrap()
            .granted,
        4
    );
    let mut all = granted + refused.granted;
    for round in 0..20 {
        let spent = spend(round, 3).await;
        all += spent.granted;
        if spent.granted == 0 {
            assert!((1..=100).contains(&spent.retry_ms), "{spent:?}");
            tokio::time::sleep(Duration::from_millis(spent.retry_ms)).await;
        }
    }
    let seconds = (nodes.node(0).store.now_ms() - began + 50) as f64 / 1e3;
    assert!(all as f64 <= 12.0 + 10.0 * seconds, "{all} in {seconds} s");
    assert!(
        all as f64 >= 12.0 + 10.0 * (seconds - 0.5),
        "{all} in {seconds} s"
    );
}

pub(crate) async fn a_lane_does_not_end_the_budget_of_another<B: Backend>() {
    let nodes = nodes::<B>().await;
    let (store, ada) = (&nodes.node(0).store, user("ada"));
    let rate = |per_second, burst| Rate { per_second, burst };
    let spend = async |lane, want, rate| store.users().spend(&ada, lane, want, rate).await.unwrap();
    let slow = rate(0.01, 5.0);
    assert_eq!(spend(Lane::Joins, 5, slow).await.granted, 5);
    // Full again in a tenth of a second, and known for another second.
    let began = store.now_ms();
    assert_eq!(spend(Lane::Messages, 1, rate(1_000.0, 100.0)).await.granted, 1);
    eventually("the fast lane's budget is forgotten", async || {
        store.now_ms() > began + 1_300
    })
    .await;
    assert_eq!(spend(Lane::Joins, 5, slow).await.granted, 0);
}

pub(crate) async fn connections_are_counted_over_all_nodes<B: Backend>() {
    let nodes = nodes::<B>().await;
    for holder in [Holder::User(user("a{d}a")), Holder::Address("2001:db8::".into())] {
        // What each node has.
        let mut here = [0; 3];
        let mut count = async |node: usize, gone: u64, more: u64, most: u64| {
            let here = &mut here[node % B::NODES];
            *here -= gone;
            let users = nodes.node(node).store.users();
            let granted = users.count(&holder, *here, more, most).await.unwrap();
            *here += granted;
            granted
        };
        let mut entered = Vec::new();
        for node in 0..5 {
            entered.push(count(node, 0, 1, 3).await);
        }
        assert_eq!(entered, [1, 1, 1, 0, 0]);
        assert_eq!(count(1, 1, 0, 3).await, 0);
        assert_eq!(count(2, 0, 5, 3).await, 1, "as many as there may be");
        assert_eq!(count(0, 0, 1, 3).await, 0);
        assert_eq!(count(0, 0, 1, 4).await, 1);
        // Who is here stays, whatever the limit.
        assert_eq!(count(1, 0, 1, 1).await, 0);
        assert_eq!(count(2, 0, 3, 6).await, 2);
        // However often it is said.
        for _ in 0..2 {
            for node in 0..B::NODES {
                assert_eq!(count(node, 0, 0, 6).await, 0);
            }
        }
        assert_eq!(count(0, 0, 1, 6).await, 0);
        assert_eq!(count(0, 1, 3, 6).await, 1);
    }
    let other = Holder::User(user("bob"));
    let users = nodes.node(0).store.users();
    assert_eq!(users.count(&other, 0, 1, 1).await.unwrap(), 1);
}

pub(crate) async fn what_an_operator_says_holds_and_is_told<B: Backend>() {
    let nodes = nodes::<B>().await;
    let (here, there) = (nodes.node(0), nodes.node(2));
    let ada = user("{ada} é");
    let standing = async |token: Option<&str>| there.store.users().standing(&ada, token).await.unwrap();
    let say = async |what, lasting| here.store.users().command(what, lasting).await.unwrap();
    assert_eq!(standing(Some("t1")).await, Standing::default());
    let before = here.store.now_ms();
    say(OperatorCommand::Revoke(ada.clone()), None).await;
    let revoked = standing(Some("t1")).await;
    assert!(revoked.revoked_before + 2_000 > before && !revoked.token_is_revoked);
    say(OperatorCommand::RevokeToken("t 1".into()), None).await;
    assert!(standing(Some("t 1")).await.token_is_revoked);
    assert!(!standing(Some("t 2")).await.token_is_revoked);
    say(OperatorCommand::Block(ada.clone()), None).await;
    assert!(standing(None).await.is_blocked);
    say(OperatorCommand::Unblock(ada.clone()), None).await;
    assert!(!standing(None).await.is_blocked);
    say(
        OperatorCommand::Block(ada.clone()),
        Some(Duration::from_millis(300)),
    )
    .await;
    assert!(standing(None).await.is_blocked);
    eventually("the block ends", async || !standing(None).await.is_blocked).await;
    say(OperatorCommand::Disconnect(ada.clone()), None).await;
    for node in [here, there] {
        eventually("all nodes are told", async || node.heard.controls().len() == 5).await;
        let controls = node.heard.controls();
        assert!(
            matches!(&controls[0], Control::Revoked { user, before } if *user == ada && *before == revoked.revoked_before)
        );
        assert_eq!(controls[1], Control::TokenRevoked("t 1".into()));
        assert_eq!(controls[2], Control::Blocked(ada.clone()));
        assert_eq!(controls[4], Control::Disconnect(ada.clone()));
    }
}
