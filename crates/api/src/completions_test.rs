use std::future::poll_fn;
use std::sync::Arc;

use super::*;

fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn later(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[test]
fn an_answer_for_a_dropped_wait_reaches_nobody() {
    let slots = Rc::new(Slots::default());
    let first = slots.open(later(9), Expired::Server);
    let old = first.ticket();
    drop(first);
    let mut second = slots.open(later(9), Expired::Server);
    assert_ne!(old, second.ticket(), "same place, new generation");
    slots.complete(old, Ok(Completion::ReadReady));
    assert!(poll_once(&mut second).is_pending());
    slots.complete(second.ticket(), Ok(Completion::ReadReady));
    assert!(matches!(poll_once(&mut second), Poll::Ready(Ok(Completion::ReadReady))));
    drop(second);
    assert_eq!((slots.in_use(), slots.timed.get()), (0, 0));
}

#[test]
fn a_sweep_ends_what_is_late_and_nothing_else() {
    let slots = Rc::new(Slots::default());
    let now = Instant::now();
    let mut late = slots.open(now, Expired::Client);
    let mut early = slots.open(now + Duration::from_secs(1), Expired::Server);
    let mut member = slots.open(now + Duration::from_secs(5), Expired::Server);
    slots.open_group(vec![member.ticket()], now);
    slots.sweep(now);
    assert!(matches!(poll_once(&mut late), Poll::Ready(Err(Expired::Client))));
    assert!(matches!(poll_once(&mut member), Poll::Ready(Err(Expired::Server))));
    assert!(poll_once(&mut early).is_pending());
    drop((late, early, member));
    assert_eq!((slots.in_use(), slots.timed.get()), (0, 0));
}

#[test]
fn a_group_answers_all_its_members() {
    let slots = Rc::new(Slots::default());
    let mut waits: Vec<Wait> = (0..3).map(|_| slots.open(later(9), Expired::Server)).collect();
    let group = slots.open_group(waits.iter().map(Wait::ticket).collect(), later(9));
    let gone = waits.pop();
    drop(gone);
    slots.complete(group, Ok(Completion::ReadReady));
    for wait in &mut waits {
        assert!(matches!(poll_once(wait), Poll::Ready(Ok(Completion::ReadReady))));
    }
    drop(waits);
    assert_eq!((slots.in_use(), slots.timed.get()), (0, 0));
}

#[test]
fn mail_from_other_threads_arrives_in_batches_and_wakes_streams() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let sink = Arc::new(Sink::new());
        let slots = Rc::new(Slots::default());
        let dispatcher = tokio::task::spawn_local(dispatch(Arc::clone(&sink), Rc::clone(&slots)));
        let waits: Vec<Wait> = (0..100).map(|_| slots.open(later(9), Expired::Server)).collect();
        let stream = slots.open_stream();
        let tickets: Vec<u64> = waits.iter().map(Wait::ticket).collect();
        let (sender, stream_ticket) = (Arc::clone(&sink), stream.ticket());
        let thread = std::thread::spawn(move || {
            for half in tickets.chunks(50) {
                sender.complete(&mut half.iter().map(|ticket| (*ticket, Completion::ReadReady)).collect());
            }
            sender.ready(stream_ticket);
        });
        for wait in waits {
            assert!(matches!(wait.await, Ok(Completion::ReadReady)));
        }
        poll_fn(|cx| stream.poll(cx)).await;
        thread.join().unwrap();
        drop(stream);
        assert_eq!(slots.in_use(), 0);
        dispatcher.abort();
    });
}

#[test]
fn answers_do_not_wait_until_every_stream_has_been_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let sink = Arc::new(Sink::new());
        let slots = Rc::new(Slots::default());
        let streams: Vec<StreamWake> = (0..10 * STREAMS_IN_A_ROW).map(|_| slots.open_stream()).collect();
        for stream in &streams {
            sink.ready(stream.ticket());
        }
        let dispatcher = tokio::task::spawn_local(dispatch(Arc::clone(&sink), Rc::clone(&slots)));
        poll_fn(|cx| streams[0].poll(cx)).await;
        let wait = slots.open(later(9), Expired::Server);
        sink.complete(&mut vec![(wait.ticket(), Completion::ReadReady)]);
        assert!(matches!(wait.await, Ok(Completion::ReadReady)));
        let last = streams.last().expect("some");
        assert!(last.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        for stream in &streams[1..] {
            poll_fn(|cx| stream.poll(cx)).await;
        }
        dispatcher.abort();
    });
}
