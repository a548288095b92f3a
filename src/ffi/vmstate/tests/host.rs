// SPDX-License-Identifier: LGPL-2.1-or-later
//! Timers and trees of a test host.

use super::fixture::*;
use crate::ffi::marshal::current;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField};
use crate::ffi::vmstate::*;
use crate::savevm::Vm;
use crate::savevm::host::Host;
use crate::vmstate::{HostObject, VmStateHost};
use crate::wire::limits::Limits;
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Arc;

/// A host whose timer is an i64 and whose tree is a list of pairs.
struct TestHost;

type Tree = RefCell<Vec<(HostObject, HostObject)>>;

fn timer(object: HostObject) -> &'static RefCell<i64> {
    // SAFETY: the tests below only have timers of this type, and leak them.
    unsafe { &*object.address().cast::<RefCell<i64>>() }
}

fn nodes(object: HostObject) -> &'static Tree {
    // SAFETY: the tests below only have trees of this type, and leak them.
    unsafe { &*object.address().cast::<Tree>() }
}

impl VmStateHost for TestHost {
    fn timer_expire_ns(&self, object: HostObject) -> Option<i64> {
        Some(*timer(object).borrow())
    }
    fn timer_set_ns(&self, object: HostObject, expire: i64) -> Option<()> {
        timer(object).replace(expire);
        Some(())
    }
    fn timer_clear(&self, object: HostObject) -> Option<()> {
        timer(object).replace(-1);
        Some(())
    }
    fn tree_count(&self, tree: HostObject) -> Option<u32> {
        Some(nodes(tree).borrow().len() as u32)
    }
    fn tree_foreach(&self, tree: HostObject, visit: &mut dyn FnMut(HostObject, HostObject) -> bool) -> Option<()> {
        let all = nodes(tree).borrow().clone();
        all.into_iter().any(|(key, value)| visit(key, value));
        Some(())
    }
    fn tree_insert(&self, tree: HostObject, key: HostObject, value: HostObject) -> Option<()> {
        nodes(tree).borrow_mut().push((key, value));
        Some(())
    }
}

impl Host for TestHost {}

fn with_toys<T>(limits: Limits, body: impl FnOnce() -> T) -> T {
    let vm = Arc::new(Vm::new(Arc::new(TestHost)));
    vm.set_limits(limits);
    current::with(&vm, body)
}

#[test]
fn timers_are_read_armed_and_disarmed() {
    let table = leak(table(c"clock", [plain(c"tick", 0, 8, &vmstate_info_timer)]));
    with_toys(Limits::default(), || {
        let at: *mut c_void = std::ptr::from_mut(Box::leak(Box::new(RefCell::new(0x0102_0304i64)))).cast();
        assert_eq!(save_at(table, at, None).bytes, [0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(load_at(table, at, &[0, 0, 0, 0, 0, 0, 0, 9], 1).ret, 0);
        assert_eq!(*timer(HostObject::new(at)).borrow(), 9);
        assert_eq!(load_at(table, at, &[0xff; 8], 1).ret, 0);
        assert_eq!(*timer(HostObject::new(at)).borrow(), -1);
    });
}

fn leaf(name: &'static std::ffi::CStr) -> VMStateDescription {
    table(name, [plain(c"x", 0, 1, &vmstate_info_uint8)])
}

/// Returns a description with a tree of bytes, whose keys are bytes or plain numbers.
fn tree(direct: bool) -> &'static VMStateDescription {
    let pair: &'static [VMStateDescription; 2] = Box::leak(Box::new([leaf(c"value"), leaf(c"key")]));
    let field = VMStateField {
        start: usize::from(!direct),
        vmsd: pair.as_ptr(),
        version_id: 1,
        ..plain(c"tree", 0, 1, &vmstate_info_gtree)
    };
    leak(table(c"iommu", [field]))
}

/// Returns a new tree in the field of a device.
fn device_with_tree() -> *mut c_void {
    let tree: *mut Tree = Box::leak(Box::new(RefCell::new(Vec::new())));
    std::ptr::from_mut(Box::leak(Box::new(tree))).cast()
}

fn count(at: *mut c_void) -> usize {
    // SAFETY: `device_with_tree` made it.
    unsafe { (**at.cast::<*mut Tree>()).borrow().len() }
}

#[test]
fn saved_tree_loads_equal() {
    with_toys(Limits::default(), || {
        for (direct, stream) in [
            (false, &b"\0\0\0\x02\x01k\x01\x01l\x02\0"[..]),
            (true, b"\0\0\0\x02\x01\0\0\0\0\0\0\0\x07\x01\x01\0\0\0\0\0\0\0\x08\x02\0"),
        ] {
            let at = device_with_tree();
            let outcome = load_at(tree(direct), at, stream, 1);
            assert_eq!((outcome.ret, outcome.bytes, count(at)), (0, vec![0], 2));
            assert_eq!(save_at(tree(direct), at, None).bytes, stream);
        }
    });
}

#[test]
fn load_rejects_a_wrong_number_of_nodes() {
    with_toys(Limits { list_elements: 3, ..Limits::default() }, || {
        for (stream, nodes, complaint) in [
            (&b"\0\0\0\x01\x01k\x01\x01l\x02\0"[..], 1, "more nodes than the 1 that were announced"),
            (b"\0\0\0\x02\x01k\x01\0", 1, "expected 2 nodes as announced, got 1"),
            (b"\xff\xff\xff\xff\x01k\x01\0", 0, "more nodes than the -1 that were announced"),
            (b"\xff\xff\xff\xff\0", 0, "expected -1 nodes as announced, got 0"),
            (b"\x7f\xff\xff\xff\x01a\x01\x01b\x01\x01c\x01\x01d\x01\0", 3, "more than 3 nodes"),
        ] {
            let at = device_with_tree();
            let outcome = load_at(tree(false), at, stream, 1);
            assert_eq!((outcome.ret, count(at)), (-libc::EINVAL, nodes));
            assert_eq!(outcome.complaint(), format!("iommu/tree: {complaint}"));
        }
        let at = device_with_tree();
        let outcome = load_at(tree(false), at, b"\0\0\0\x02\x01k\x01\x01", 1);
        assert_eq!((outcome.ret, count(at)), (-libc::EIO, 1));
        assert_eq!(outcome.complaint(), "iommu/tree/[1]/value/x: the stream ends");
    });
}

#[test]
fn tree_without_a_host_is_an_error() {
    let at = device_with_tree();
    assert_eq!(save_at(tree(false), at, None).ret, -libc::ENOSYS);
    let outcome = load_at(tree(false), at, b"\0\0\0\0\0", 1);
    assert_eq!(outcome.complaint(), "iommu/tree: the host has no operations for trees");
    let mut nothing = std::ptr::null_mut::<c_void>();
    with_toys(Limits::default(), || {
        assert_eq!(save(tree(false), &mut nothing).complaint(), "iommu/tree: a null pointer to a tree");
    });
}
