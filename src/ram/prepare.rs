// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory that is made present ahead of the pages that come, by a thread beside the one that reads them: half of a load's
//! time goes into memory that is touched for the first time.

use super::block::Block;
use crate::sys::spawn;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Most orders that wait. Who finds no room makes no order: memory that is not prepared only takes longer to touch.
const ORDERS_MAX: usize = 16;

type Order = (Arc<Block>, Range<usize>);

/// The thread. It ends with the value, after which it touches no block any more.
pub(super) struct Preparer {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// Where the system has no thread for it, no order is taken.
    pub fn start() -> Self {
        let (orders, taken) = sync_channel(ORDERS_MAX);
        let thread = spawn("savevm-prepare", move || run(&taken));
        Self { orders: Some(orders), thread: thread.ok() }
    }

    /// Has a range of the block made present soon; whether the order was taken.
    pub fn order(&self, block: &Arc<Block>, range: Range<usize>) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send((Arc::clone(block), range)).is_ok())
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was told by the panic hook.
            let _ = thread.join();
        }
    }
}

fn run(orders: &Receiver<Order>) {
    for (block, range) in orders {
        block.memory().prepare_write(range.start, range.len());
    }
}
