//! What every backend must pass: one list of cases, run against each of them.

mod backend;
mod leases;
mod model;
mod pages;
mod transactions;
mod watches;

/// A backend's module has a test for every case.
macro_rules! conformance {
    ($($backend:ident),*) => {
        $(
            mod $backend {
                cases! { $backend,
                    pages: [
                        what_is_put_is_found_until_it_is_deleted,
                        a_range_has_the_keys_under_its_prefix_in_order,
                        a_page_ends_at_its_limit_and_says_whether_there_is_more,
                        pages_follow_each_other_wherever_the_last_one_ended,
                        a_page_ends_at_its_longest,
                        a_page_is_of_one_revision,
                    ],
                    transactions: [
                        revisions_count_transactions,
                        every_comparison_must_hold,
                        a_conflict_writes_nothing,
                        comparisons_see_what_was_before_the_transaction,
                        the_last_change_of_a_key_wins,
                        bounds_are_refused_and_write_nothing,
                        the_longest_of_everything_is_taken,
                        who_stops_waiting_undoes_nothing,
                        who_never_waited_wrote_nothing,
                    ],
                    watches: [
                        a_watch_begins_with_what_is_remembered_and_goes_on,
                        a_watch_has_one_event_for_each_changed_key,
                        a_watch_tells_of_commits_elsewhere_by_empty_batches,
                        a_page_and_a_watch_behind_it_are_everything,
                        a_watch_of_the_future_waits_for_it,
                        no_batch_is_lost_to_impatience,
                        forgotten_history_is_compacted,
                        a_slow_reader_is_left_behind_and_can_begin_anew,
                        a_reader_resumes_behind_its_last_batch,
                        history_is_bounded_by_its_length_too,
                        a_watch_ends_with_its_store,
                    ],
                    leases: [
                        keys_vanish_with_their_lease,
                        a_lease_kept_alive_holds,
                        each_lease_has_its_own_time,
                        a_revoked_lease_takes_its_keys_along,
                        what_has_no_lease_is_unknown,
                        a_key_belongs_to_the_lease_of_its_last_put,
                        a_deleted_key_is_no_longer_its_leases,
                        a_conflict_binds_nothing,
                        the_end_of_a_lease_without_keys_is_no_revision,
                        the_numbers_of_leases_are_never_used_again,
                        a_lease_of_no_time_ends_at_once,
                        a_lease_has_so_many_keys_and_no_more,
                        leases_do_not_keep_a_store_open,
                    ],
                }
                threaded_cases! { $backend,
                    transactions: [
                        concurrent_transactions_have_revisions_of_their_own,
                        concurrent_counting_loses_nothing,
                    ],
                    watches: [
                        watches_see_everything_once_while_many_write,
                        slow_readers_see_a_gapless_piece_of_history,
                    ],
                }

                #[test]
                fn it_does_as_the_model() {
                    crate::model::it_does_as_the_model(crate::backend::$backend);
                }
            }
        )*
    };
}

/// In one thread, so that time can stand still.
macro_rules! cases {
    ($backend:ident, $($file:ident: [$($case:ident,)*],)*) => {
        $($(
            #[tokio::test]
            async fn $case() {
                crate::$file::$case(crate::backend::$backend).await;
            }
        )*)*
    };
}

macro_rules! threaded_cases {
    ($backend:ident, $($file:ident: [$($case:ident,)*],)*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                crate::$file::$case(crate::backend::$backend).await;
            }
        )*)*
    };
}

conformance!(memory, redb);
