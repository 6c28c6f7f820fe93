//! A few threads on which many jobs take their turns, each again and again.
//!
//! One thread does it all as long as it keeps up. Another stands by: where a turn
//! does not end (a file system that hangs) or there is more to do than one can,
//! it goes on with the others, and a further one stands by.
//!
//! Must not know: what a turn does.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Threads at most: one fewer may hang before the others' turns wait.
const THREADS: usize = 16;

/// They read and hash: that takes little. The rest is never touched.
const STACK: usize = 512 * 1024;

/// So late is a turn whose thread is taken to be busy.
const LATE: Duration = Duration::from_millis(5);

/// Something that is done in turns.
pub(super) trait Turn: Send {
    /// One turn, as short as may be.
    fn turn(&mut self) -> Next;
}

/// When the next turn comes.
pub(super) enum Next {
    After(Duration),
    Never,
}

/// The threads. They end when there are no jobs.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// By when they are due.
    waiting: BTreeMap<(Instant, u64), Box<dyn Turn>>,
    jobs: HashMap<u64, Job>,
    next: u64,
    threads: usize,
    /// Threads that have nothing in hand.
    idle: usize,
    /// The one that took a turn last: it goes on without delay.
    leader: Option<thread::ThreadId>,
    /// It is one of the idle ones.
    leader_idle: bool,
    /// Threads begun so far.
    #[cfg(test)]
    begun: usize,
}

#[derive(Default)]
struct Job {
    /// `None`: a thread has it in hand.
    due: Option<Instant>,
    /// What came while it was in hand.
    wake: bool,
}

/// A job in the pool. Dropped, it takes no further turn.
pub(super) struct Handle {
    pool: Pool,
    id: u64,
}

impl Pool {
    pub(super) fn start(&self, turn: impl Turn + 'static) -> std::io::Result<Handle> {
        let mut state = self.0.lock();
        let id = state.next;
        state.next = id.wrapping_add(1);
        let now = Instant::now();
        state.jobs.insert(id, Job::default());
        state.wait(id, now, Box::new(turn));
        let handle = Handle {
            pool: self.clone(),
            id,
        };
        let begun = self.0.begin_where_all_are_busy(&mut state);
        let only = state.threads == 0;
        drop(state);
        self.0.news.notify_all();
        // With none at all it would never have a turn.
        if only {
            begun?;
        }
        Ok(handle)
    }
}

impl Handle {
    /// Lets its next turn come now.
    pub(super) fn wake(&self) {
        let mut state = self.pool.0.lock();
        let Some(job) = state.jobs.get_mut(&self.id) else {
            return;
        };
        let Some(due) = job.due else {
            job.wake = true;
            return;
        };
        if let Some(turn) = state.waiting.remove(&(due, self.id)) {
            state.wait(self.id, Instant::now(), turn);
        }
        // One that could not be begun earlier, maybe.
        let _ = self.pool.0.begin_where_all_are_busy(&mut state);
        drop(state);
        self.pool.0.news.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.pool.0.lock();
        let job = state.jobs.remove(&self.id);
        let due = job.and_then(|job| job.due);
        let turn = due.and_then(|due| state.waiting.remove(&(due, self.id)));
        drop(state);
        self.pool.0.news.notify_all();
        // It closes files: not under the lock.
        drop(turn);
    }
}

impl State {
    fn wait(&mut self, id: u64, due: Instant, turn: Box<dyn Turn>) {
        // One whose handle is gone is dropped.
        if let Some(job) = self.jobs.get_mut(&id) {
            job.due = Some(due);
            self.waiting.insert((due, id), turn);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Turns run outside the lock, and a panic in one is caught.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread whose turn does not end is one that is busy.
    fn begin_where_all_are_busy(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        match state.idle == 0 && state.threads < THREADS {
            true => self.begin_thread(state),
            false => Ok(()),
        }
    }

    fn begin_thread(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        thread::Builder::new()
            .name("logchain-pump".to_owned())
            .stack_size(STACK)
            .spawn(move || shared.work())?;
        state.threads += 1;
        #[cfg(test)]
        {
            state.begun += 1;
        }
        Ok(())
    }

    fn work(self: Arc<Self>) {
        let me = Some(thread::current().id());
        let mut state = self.lock();
        state.leader.get_or_insert_with(|| thread::current().id());
        loop {
            let leads = state.leader == me;
            // Beside the one that leads, one stands by.
            let standing_by = state.idle.saturating_sub(usize::from(state.leader_idle));
            if state.jobs.is_empty() || (!leads && standing_by > 0) {
                break;
            }
            let from = state.waiting.first_key_value().map(|((due, _), _)| *due);
            let from = from.map(|due| if leads { due } else { due + LATE });
            let now = Instant::now();
            if from.is_none_or(|from| from > now) {
                state.idle += 1;
                state.leader_idle |= leads;
                state = match from {
                    None => self
                        .news
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                    Some(from) => {
                        let waited = self.news.wait_timeout(state, from.duration_since(now));
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                state.idle = state.idle.saturating_sub(1);
                if state.leader == me {
                    state.leader_idle = false;
                }
                continue;
            }
            let Some(((_, id), mut turn)) = state.waiting.pop_first() else {
                continue;
            };
            if let Some(job) = state.jobs.get_mut(&id) {
                job.due = None;
            }
            state.leader = me;
            state.leader_idle = false;
            // Without another thread this one does it alone.
            let _ = self.begin_where_all_are_busy(&mut state);
            drop(state);
            let next = catch_unwind(AssertUnwindSafe(|| turn.turn())).unwrap_or(Next::Never);
            let due = match next {
                Next::After(time) => Some(Instant::now() + time),
                Next::Never => None,
            };
            if due.is_none() {
                drop(turn);
                state = self.lock();
                state.jobs.remove(&id);
                continue;
            }
            state = self.lock();
            let woken = state
                .jobs
                .get_mut(&id)
                .map(|job| std::mem::take(&mut job.wake));
            let due = match (woken, due) {
                (Some(true), _) => Instant::now(),
                (Some(false), Some(due)) => due,
                // Its handle is gone.
                (None, _) | (_, None) => {
                    drop(state);
                    drop(turn);
                    state = self.lock();
                    continue;
                }
            };
            state.wait(id, due, turn);
        }
        state.threads = state.threads.saturating_sub(1);
        if state.leader == me {
            state.leader = None;
            state.leader_idle = false;
        }
        drop(state);
        // The next one learns that there is nothing to do, or that it leads.
        self.news.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    struct Count(Arc<AtomicUsize>, Duration);
    impl Turn for Count {
        fn turn(&mut self) -> Next {
            self.0.fetch_add(1, Ordering::Relaxed);
            Next::After(self.1)
        }
    }

    struct Hang(mpsc::Receiver<()>);
    impl Turn for Hang {
        fn turn(&mut self) -> Next {
            let _ = self.0.recv();
            Next::Never
        }
    }

    struct Panics;
    impl Turn for Panics {
        fn turn(&mut self) -> Next {
            std::panic::resume_unwind(Box::new(()));
        }
    }

    fn until(what: &str, is: impl Fn() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            crate::pause::pause(Duration::from_millis(2));
        }
    }

    #[test]
    fn turns_go_on_beside_some_that_hang_and_one_that_panics() {
        let pool = Pool::default();
        let count = Arc::new(AtomicUsize::new(0));
        let look = Duration::from_millis(1);
        let many: Vec<_> = (0..100)
            .map(|_| pool.start(Count(Arc::clone(&count), look)).unwrap())
            .collect();
        let _panics = pool.start(Panics).unwrap();
        let (ends, hanging): (Vec<_>, Vec<_>) = (0..THREADS - 1)
            .map(|_| {
                let (end, ended) = mpsc::channel();
                (end, pool.start(Hang(ended)).unwrap())
            })
            .unzip();
        until("all hang", || pool.0.lock().threads == THREADS);
        let before = count.load(Ordering::Relaxed);
        until("they go on", || {
            count.load(Ordering::Relaxed) > before + 300
        });
        assert!(pool.0.lock().threads <= THREADS);
        drop((many, ends, hanging));
        until("the threads end", || pool.0.lock().threads == 0);
    }

    #[test]
    fn one_that_hangs_after_all_were_dropped_holds_up_nobody() {
        let pool = Pool::default();
        let (end, ended) = mpsc::channel();
        let hangs = pool.start(Hang(ended)).unwrap();
        until("it hangs, and one stands by", || {
            let state = pool.0.lock();
            state.threads == 2 && state.idle == 1 && state.waiting.is_empty()
        });
        drop(hangs);
        until("nobody stands by", || pool.0.lock().threads == 1);
        let count = Arc::new(AtomicUsize::new(0));
        let look = Duration::from_millis(1);
        let job = pool.start(Count(Arc::clone(&count), look)).unwrap();
        until("turns", || count.load(Ordering::Relaxed) > 20);
        drop((job, end));
        until("the threads end", || pool.0.lock().threads == 0);
    }

    #[test]
    fn one_thread_does_it_and_one_stands_by() {
        let pool = Pool::default();
        let count = Arc::new(AtomicUsize::new(0));
        let day = Duration::from_secs(86_400);
        let job = pool.start(Count(Arc::clone(&count), day)).unwrap();
        until("first turn", || count.load(Ordering::Relaxed) == 1);
        job.wake();
        until("woken", || count.load(Ordering::Relaxed) == 2);
        until("two threads", || pool.0.lock().threads <= 2);
        drop(job);
        until("the threads end", || pool.0.lock().threads == 0);
        // One that is busy with nothing else begins no thread at each of its turns.
        let count = Arc::new(AtomicUsize::new(0));
        let look = Duration::from_millis(10);
        let job = pool.start(Count(Arc::clone(&count), look)).unwrap();
        until("many turns", || count.load(Ordering::Relaxed) > 50);
        let begun = pool.0.lock().begun;
        assert!(begun < 20, "{begun} threads for 50 turns");
        drop(job);
        until("the threads end", || pool.0.lock().threads == 0);
        // And begin again.
        let _job = pool.start(Count(Arc::clone(&count), day)).unwrap();
        until("again", || count.load(Ordering::Relaxed) > 50);
    }
}
