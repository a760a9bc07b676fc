//! One suite over every store: what `roomgate::store` promises. And, over Redis alone, what Redis must look like
//! inside, and what happens when it is damaged, emptied, deaf or away.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "store_contract/commands.rs"]
mod commands;
#[path = "store_contract/events.rs"]
mod events;
#[path = "store_contract/harness.rs"]
mod harness;
#[path = "store_contract/log.rs"]
mod log;
#[path = "store_contract/members.rs"]
mod members;
#[path = "store_contract/messages.rs"]
mod messages;
#[path = "store_contract/on_memory.rs"]
mod on_memory;
#[path = "store_contract/on_redis.rs"]
mod on_redis;
#[path = "store_contract/presence.rs"]
mod presence;
#[path = "store_contract/property.rs"]
mod property;
#[allow(dead_code, reason = "each suite uses a part")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "store_contract/redis_faults.rs"]
mod redis_faults;
#[path = "store_contract/redis_links.rs"]
mod redis_links;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "store_contract/rollback.rs"]
mod rollback;
#[path = "store_contract/state.rs"]
mod state;

/// The suite for one kind of store, as tests of a module.
macro_rules! contract {
    ($module:ident, $backend:ty) => {
        mod $module {
            contract! { @tests $backend;
                presence: a_join_makes_the_room_only_if_it_may, a_room_that_is_gone_refuses_everything,
                    joins_of_a_batch_share_one_event, pictures_show_the_end_of_the_batch,
                    users_come_and_go_with_their_connections, presence_events_gather_until_another_event,
                    a_user_that_comes_and_goes_in_one_batch, presence_is_merged_and_told, presence_has_a_limit,
                    presence_keeps_its_text;
                members: user_ids_may_hold_anything_printable, members_are_listed_in_pages;
                messages: a_message_is_acknowledged_as_it_is_sent_to_all, identical_messages_are_two,
                    history_pages_both_ways, cursors_need_not_exist, history_in_a_batch_sees_what_came_before_it,
                    a_page_ends_at_its_bytes, a_snapshot_brings_as_many_messages_as_asked,
                    messages_past_retention_are_not_returned;
                state: fields_are_set_read_and_removed, state_in_a_batch_is_in_order,
                    a_patch_of_another_version_is_a_conflict, increments_add_up,
                    what_cannot_be_incremented_is_refused_whole, the_state_has_a_limit, state_keeps_its_text;
                log: every_change_takes_the_next_seq, a_resume_brings_what_was_missed,
                    resumes_of_a_batch_have_their_own_start, what_cannot_be_resumed_says_why,
                    the_log_is_bounded_by_number, the_log_is_bounded_by_bytes, the_log_is_bounded_by_age;
                events: a_confirmed_subscription_brings_all_that_follows, signals_pass_without_a_trace,
                    only_subscribed_rooms_are_heard, many_subscriptions_at_once, nodes_agree_on_one_order;
                commands: a_command_that_comes_again_is_answered_as_before, a_command_may_stand_twice_in_a_batch,
                    other_nodes_remember_too, an_id_stands_for_one_command, a_refusal_is_not_remembered,
                    a_command_that_changed_nothing_is_remembered_too,
                    many_commands_at_once_are_remembered, commands_are_forgotten_after_their_time,
                    heads_tell_where_rooms_stand;
                property: replaying_events_gives_the_picture;
            }
        }
    };
    (@tests $backend:ty; $($subject:ident: $($test:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $test() {
                crate::$subject::$test::<$backend>().await;
            }
        )+)+
    };
}

contract!(memory, crate::on_memory::Memory);
contract!(redis, crate::on_redis::Redis);
