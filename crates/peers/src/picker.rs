//! Which of a member's URLs is tried. Source: etcd `rafthttp/urlpick.go`.

use parking_lot::Mutex;

use crate::url::PeerUrl;

pub(crate) struct Picker(Mutex<State>);

struct State {
    urls: Vec<PeerUrl>,
    picked: usize,
}

impl Picker {
    /// `urls` must not be empty.
    pub(crate) fn new(urls: Vec<PeerUrl>) -> Self {
        Self(Mutex::new(State { urls, picked: 0 }))
    }

    pub(crate) fn update(&self, urls: Vec<PeerUrl>) {
        *self.0.lock() = State { urls, picked: 0 };
    }

    /// The one that worked last.
    pub(crate) fn pick(&self) -> PeerUrl {
        let state = self.0.lock();
        state.urls[state.picked].clone()
    }

    /// `url` did not work: the next one's turn, unless that is so already.
    pub(crate) fn unreachable(&self, url: &PeerUrl) {
        let mut state = self.0.lock();
        if state.urls[state.picked] == *url {
            state.picked = (state.picked + 1) % state.urls.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_is_tried_once() {
        let url = |text: &str| PeerUrl::parse(text).unwrap();
        let picker = Picker::new(vec![url("http://a:1"), url("http://b:1")]);
        let first = picker.pick();
        // Two streams fail on the same one.
        picker.unreachable(&first);
        picker.unreachable(&first);
        assert_eq!(picker.pick(), url("http://b:1"));
        picker.unreachable(&url("http://b:1"));
        assert_eq!(picker.pick(), first);
        picker.update(vec![url("http://c:1")]);
        picker.unreachable(&first);
        assert_eq!(picker.pick(), url("http://c:1"));
    }
}
