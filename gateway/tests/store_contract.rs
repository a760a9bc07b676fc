//! One suite over every store: what `roomgate::store` promises. And, over Redis alone, what Redis must look like
//! inside, what happens when it is damaged, emptied, deaf or away, and what becomes of nodes that end without a word.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "store_contract/commands.rs"]
mod commands;
#[path = "store_contract/connections.rs"]
mod connections;
#[path = "store_contract/counts.rs"]
mod counts;
#[path = "store_contract/edits.rs"]
mod edits;
#[path = "store_contract/ending.rs"]
mod ending;
#[path = "store_contract/events.rs"]
mod events;
#[path = "store_contract/governance.rs"]
mod governance;
#[path = "store_contract/harness.rs"]
mod harness;
#[path = "store_contract/leases.rs"]
mod leases;
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
#[path = "store_contract/paused.rs"]
mod paused;
#[path = "store_contract/positions.rs"]
mod positions;
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
#[path = "store_contract/sweep.rs"]
mod sweep;
#[path = "store_contract/users.rs"]
mod users;

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
                members: user_ids_may_hold_anything_printable, members_are_listed_in_pages,
                    pages_of_many_hold_each_member_once;
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
                sweep: users_leave_after_their_grace_and_not_before, nothing_is_handed_out_before_it_is_due,
                    a_sweep_says_when_something_is_due_again, what_is_due_is_claimed_once,
                    a_claim_that_nothing_follows_comes_again, a_loss_does_not_end_a_claim, a_thousand_due_users_are_announced_once_each,
                    a_sweep_that_dies_midway_is_finished_by_another, who_is_back_before_the_sweep_stays,
                    old_messages_go_by_a_sweep, a_room_with_members_is_looked_at_once_a_grace,
                    a_room_that_ended_is_not_handed_out_for_ever, who_was_taken_for_gone_returns,
                    who_is_active_is_seen;
                counts: a_room_with_too_many_members_counts, below_four_fifths_everybody_is_named,
                    a_sweep_may_end_the_counting, a_batch_may_begin_and_end_the_counting,
                    a_room_may_be_told_to_count, members_of_a_room_that_counts_are_listed,
                    a_resume_in_a_room_that_counts_brings_the_number;
                positions: a_position_stands_in_every_record, a_position_goes_with_its_user,
                    a_resume_brings_positions, many_positions_at_once,
                    a_resume_in_a_room_that_counts_brings_no_positions;
                edits: an_edit_changes_the_body_and_nothing_else, only_authors_and_moderators_change_a_message,
                    an_image_stays_an_image, changes_in_a_batch_see_what_came_before_them, changes_happen_once,
                    who_was_away_is_told_of_edits_and_deletions, a_client_is_told_what_it_lacks,
                    a_long_comparison_goes_on_where_it_ended, what_is_past_retention_is_gone;
                governance: a_muted_user_may_only_read, a_mute_ends_by_itself,
                    a_kicked_user_is_out_and_may_come_back, a_banned_user_stays_out,
                    a_room_that_counts_tells_who_is_put_out, moderation_happens_once_and_on_every_node,
                    a_configuration_is_changed_setting_by_setting, a_room_has_a_capacity,
                    a_room_bounds_its_messages, a_lane_has_a_rate, slow_mode_holds_each_user_up,
                    arrivals_have_a_rate_and_members_do_not, a_retry_is_answered_whatever_the_rules,
                    presence_is_configured_at_run_time, a_room_keeps_its_messages_for_its_own_time,
                    nothing_of_a_busy_room_outlives_its_window, a_waiting_room_lives_shorter;
                ending: a_completed_room_takes_nothing_more, a_room_goes_out_and_comes_back_equal,
                    a_room_that_is_there_is_not_restored_over, trouble_keeps_the_room,
                    a_completed_room_is_handed_out_until_it_is_gone,
                    a_command_happens_once_over_the_end_of_a_room, a_room_goes_on_behind_a_clock_that_was_ahead,
                    an_idle_room_may_be_completed_by_a_sweep;
                users: a_budget_is_one_over_all_nodes, a_lane_does_not_end_the_budget_of_another,
                    connections_are_counted_over_all_nodes,
                    what_an_operator_says_holds_and_is_told;
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
