// SPDX-License-Identifier: LGPL-2.1-or-later
//! Devices with tables of other versions: handlers and descriptions.

use super::{Abi, Struct, known};
use crate::channel::memory::{Reader, Writer};
use crate::ffi::exports::abi::*;
use crate::ffi::exports::driver_phases::*;
use crate::ffi::exports::phases::*;
use crate::ffi::exports::qemu_file::qemu_get_byte;
use crate::ffi::exports::register::register_savevm_live;
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, SaveVMAbi};
use crate::ffi::marshal::{c_error, current};
use crate::ffi::types::abi::SaveVMAbiConstantId;
use crate::ffi::types::abi::SaveVMAbiMemberId::{self as Id, *};
use crate::ffi::vmstate::register::vmstate_unregister;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField};
use crate::ffi::vmstate::vmstate_info_uint32;
use crate::file::MigFile;
use crate::savevm::Vm;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// A table of a version as a C program would have it: memory with members at their offsets.
struct Table {
    abi: &'static Abi,
    words: Vec<usize>,
}

impl Table {
    fn new(version: u32, of: Struct) -> Self {
        let abi = known(version).unwrap();
        Self { abi, words: vec![0; abi.size(of).div_ceil(size_of::<usize>()) + 1] }
    }

    /// Stores a member.
    fn set<T>(mut self, id: Id, value: T) -> Self {
        let slot = self.abi.slots[id as usize];
        assert!(slot.kind != 0, "the version has no {id:?}");
        // SAFETY: the offset is inside the table.
        unsafe { self.words.as_mut_ptr().byte_add(slot.offset.into()).cast::<T>().write_unaligned(value) };
        self
    }

    /// The table, which is never freed.
    fn leak(self) -> *const c_void {
        self.words.leak().as_ptr().cast()
    }
}

fn layout(version: u32) -> *const SaveVMAbi {
    savevm_abi_of_qemu(version)
}

/// Runs `body` in a context of its own.
fn in_context<T>(version: Option<u32>, body: impl FnOnce(&Arc<Vm>) -> T) -> T {
    let vm = current::new(Arc::new(crate::savevm::host::NoHost));
    current::with(&vm, || {
        if let Some(version) = version {
            // SAFETY: NULL is the current context, and the layout is a known one.
            assert_eq!(unsafe { savevm_set_abi(ptr::null_mut(), layout(version), ptr::null_mut()) }, 0);
        }
        body(&vm)
    })
}

fn writer() -> (MigFile, Arc<Writer>) {
    let writer = Arc::new(Writer::new());
    (MigFile::new(writer.clone(), true), writer)
}

fn message(error: *mut CError) -> String {
    // SAFETY: the error came from a function of the library.
    unsafe { c_error::take(error, 0) }.map_or(String::new(), |error| error.to_string())
}

/// What the callbacks of a device did.
#[derive(Default)]
struct Log(Vec<&'static str>);

unsafe extern "C" fn prepare(opaque: *mut c_void, errp: *mut *mut CError) -> c_int {
    // SAFETY: the tests register a `Log`.
    let log = unsafe { &mut *opaque.cast::<Log>() };
    log.0.push("prepare");
    // SAFETY: `errp` points to NULL.
    unsafe { c_error::give(errp, crate::error::Error::new(libc::EBUSY, "not now")) };
    -libc::EBUSY
}

unsafe extern "C" fn setup_error(f: *mut QEMUFile, _opaque: *mut c_void, errp: *mut *mut CError) -> c_int {
    assert!(!f.is_null());
    // SAFETY: `errp` points to NULL.
    unsafe { c_error::give(errp, crate::error::Error::new(libc::ENOSPC, "no room")) };
    -libc::ENOSPC
}

unsafe extern "C" fn pending(_opaque: *mut c_void, must: *mut u64, can: *mut u64) {
    // SAFETY: the sums of the caller.
    unsafe { (*must, *can) = (*must + 10, *can + 300) }
}

unsafe extern "C" fn estimate(_opaque: *mut c_void, must: *mut u64, can: *mut u64) {
    // SAFETY: the sums of the caller.
    unsafe { (*must, *can) = (*must + 1, *can + 2) }
}

unsafe extern "C" fn complete(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    // SAFETY: the tests register a `Log`, and `f` is open.
    unsafe {
        (*opaque.cast::<Log>()).0.push("complete");
        crate::ffi::exports::qemu_file::qemu_put_byte(f, 0x55);
    }
    0
}

unsafe extern "C" fn yes(_opaque: *mut c_void) -> bool {
    true
}

fn register(version: u32, table: *const c_void, log: &mut Log) -> c_int {
    // SAFETY: the table is one of that version and is never freed.
    unsafe { savevm_abi_register_savevm_live(layout(version), c"d".as_ptr(), 0, 1, table, ptr::from_mut(log).cast()) }
}

#[test]
fn callbacks_of_10_0_are_called_with_their_errors() {
    in_context(Some(1000), |_| {
        let (mut log, mut error) = (Log::default(), ptr::null_mut());
        let table = Table::new(1000, Struct::Handlers)
            .set(SAVEVM_ABI_SaveVMHandlers_save_prepare, prepare as *const ())
            .set(SAVEVM_ABI_SaveVMHandlers_save_setup, setup_error as *const ())
            .set(SAVEVM_ABI_SaveVMHandlers_state_pending_exact, pending as *const ())
            .set(SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, estimate as *const ());
        assert_eq!(register(1000, table.leak(), &mut log), 0);
        // SAFETY: `error` is NULL.
        assert_eq!(unsafe { savevm_state_prepare(&raw mut error) }, -libc::EBUSY);
        assert!(message(error).contains("not now") && log.0 == ["prepare"]);
        let ((file, _sink), mut error) = (writer(), ptr::null_mut());
        // SAFETY: the file is open, and `error` is NULL.
        assert_eq!(unsafe { savevm_state_setup(as_c(&file), &raw mut error) }, -libc::ENOSPC);
        assert!(message(error).contains("no room"));
        for (exact, expected) in [(true, (10, 300)), (false, (1, 2))] {
            let (mut must, mut can) = (7, 7);
            // SAFETY: the results are writable.
            unsafe { savevm_state_pending(exact, &raw mut must, &raw mut can) };
            assert_eq!((must, can), expected);
        }
    });
}

#[test]
fn save_complete_of_10_1_ends_precopy_and_postcopy() {
    for (postcopy, in_precopy, in_postcopy) in [(false, 1, 0), (true, 0, 1)] {
        in_context(Some(1001), |_| {
            let mut log = Log::default();
            let mut table = Table::new(1001, Struct::Handlers)
                .set(SAVEVM_ABI_SaveVMHandlers_save_complete, complete as *const ())
                .set(SAVEVM_ABI_SaveVMHandlers_save_setup, setup_error as *const ());
            if postcopy {
                table = table.set(SAVEVM_ABI_SaveVMHandlers_has_postcopy, yes as *const ());
            }
            register(1001, table.leak(), &mut log);
            let (file, sink) = writer();
            // SAFETY: the file is open.
            assert_eq!(unsafe { savevm_state_complete_precopy_iterable(as_c(&file), true) }, 0);
            assert_eq!(log.0.len(), in_precopy);
            // SAFETY: the file is open.
            unsafe { qemu_savevm_state_complete_postcopy(as_c(&file)) };
            assert_eq!(log.0.len(), in_precopy + in_postcopy);
            file.flush();
            assert_eq!(sink.contents(), b"\x03\0\0\0\0\x55\x7e\0\0\0\0\0");
        });
    }
}

#[test]
fn contexts_of_different_layouts_read_the_same_names_by_their_own() {
    let mut log = Log::default();
    let opaque = ptr::from_mut(&mut log).cast();
    for version in [702, 800, 802, 1000] {
        let table = Table::new(version, Struct::Handlers)
            .set(SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, complete as *const ())
            .leak();
        in_context(Some(version), |_| {
            // SAFETY: the table is one of the context's version.
            assert_eq!(unsafe { register_savevm_live(c"d".as_ptr(), 0, 1, table.cast(), opaque) }, 0);
            let (file, _sink) = writer();
            // SAFETY: the file is open.
            assert_eq!(unsafe { savevm_state_complete_precopy_iterable(as_c(&file), false) }, 0);
        });
    }
    assert_eq!(log.0.len(), 4);
}

const END: VMStateField = VMStateField {
    name: ptr::null(),
    err_hint: ptr::null(),
    offset: 0,
    size: 0,
    start: 0,
    num: 0,
    num_offset: 0,
    size_offset: 0,
    info: ptr::null(),
    flags: 1 << 16,
    vmsd: ptr::null(),
    version_id: 0,
    struct_version_id: 0,
    field_exists: None,
};

fn number(name: &'static CStr) -> VMStateField {
    VMStateField { name: name.as_ptr(), size: 4, info: &raw const vmstate_info_uint32, flags: 1, ..END }
}

/// A description of one number.
fn description(version: u32, end: u32) -> Table {
    let fields = vec![number(c"number"), VMStateField { flags: end, ..END }].leak();
    let priority = known(version).unwrap().constant(SaveVMAbiConstantId::SAVEVM_ABI_MIG_PRI_DEFAULT).unwrap();
    Table::new(version, Struct::Description)
        .set(SAVEVM_ABI_VMStateDescription_name, c"numbers".as_ptr())
        .set(SAVEVM_ABI_VMStateDescription_version_id, 1 as c_int)
        .set(SAVEVM_ABI_VMStateDescription_minimum_version_id, 1 as c_int)
        .set(SAVEVM_ABI_VMStateDescription_priority, priority)
        .set(SAVEVM_ABI_VMStateDescription_fields, fields.as_ptr())
}

unsafe extern "C" fn load_old(f: *mut QEMUFile, opaque: *mut c_void, version: c_int) -> c_int {
    // SAFETY: the file is open.
    let byte = unsafe { qemu_get_byte(f) };
    // SAFETY: the test loads into a number.
    unsafe { *opaque.cast::<c_int>() = byte + version };
    if version == 3 { -libc::EPERM } else { 0 }
}

#[test]
fn older_streams_are_loaded_by_the_function_of_the_description() {
    for version in [500, 502, 601, 602] {
        let table = description(version, 0)
            .set(SAVEVM_ABI_VMStateDescription_version_id, 5 as c_int)
            .set(SAVEVM_ABI_VMStateDescription_minimum_version_id, 4 as c_int)
            .set(SAVEVM_ABI_VMStateDescription_minimum_version_id_old, 2 as c_int)
            .set(SAVEVM_ABI_VMStateDescription_load_state_old, load_old as *const ())
            .leak();
        let loads = |stream: c_int| {
            let (mut value, mut error) = (0u32, ptr::null_mut());
            let opaque = ptr::from_mut(&mut value).cast();
            let file = MigFile::new(Arc::new(Reader::new(vec![0, 0, 1, 0, 0])), false);
            let ret = in_context(None, |_| {
                // SAFETY: the table describes the number, the file is open, and `error` is NULL.
                unsafe { savevm_abi_vmstate_load(layout(version), as_c(&file), table, opaque, stream, &raw mut error) }
            });
            (ret, value, message(error).contains("load_state_old"))
        };
        assert_eq!([1, 6].map(loads), [(-libc::EINVAL, 0, false); 2]);
        assert_eq!(loads(2), (0, 2, false));
        assert_eq!(loads(3), (-libc::EPERM, 3, true));
        assert_eq!([4, 5].map(loads), [(0, 256, false); 2]);
    }
}

fn register_description(version: u32, table: *const c_void, opaque: *mut c_void) -> Result<(), String> {
    let mut error = ptr::null_mut();
    // SAFETY: the table is one of that version and is never freed.
    let ret = unsafe {
        savevm_abi_vmstate_register(layout(version), ptr::null_mut(), 0, table, opaque, -1, 0, &raw mut error)
    };
    if ret == 0 { Ok(()) } else { Err(message(error)) }
}

#[test]
fn descriptions_of_all_versions_write_and_load_the_same_bytes() {
    for version in super::known::VERSIONS {
        let table = description(version, if version < 800 { 0 } else { 1 << 16 }).leak();
        let mut value = 0x0102_0304u32;
        let opaque = ptr::from_mut(&mut value).cast::<c_void>();
        in_context(None, |_| {
            register_description(version, table, opaque).unwrap();
            let (file, sink) = writer();
            // SAFETY: the table describes the number, and the file is open.
            let ret = unsafe {
                savevm_abi_vmstate_save(
                    layout(version),
                    as_c(&file),
                    table,
                    opaque,
                    ptr::null_mut(),
                    SAVEVM_ABI_OWN_VERSION,
                    ptr::null_mut(),
                )
            };
            file.flush();
            assert_eq!((ret, sink.contents()), (0, vec![1, 2, 3, 4]), "{version}");
            let file = MigFile::new(Arc::new(Reader::new(vec![5, 6, 7, 8, 0])), false);
            // SAFETY: as above.
            let load =
                |v| unsafe { savevm_abi_vmstate_load(layout(version), as_c(&file), table, opaque, v, ptr::null_mut()) };
            assert_eq!((load(2), load(1)), (-libc::EINVAL, 0), "{version}");
            // SAFETY: the pointers are only compared.
            unsafe { vmstate_unregister(ptr::null_mut(), table.cast::<VMStateDescription>(), opaque) };
        });
        assert_eq!(value, 0x0506_0708);
    }
}

unsafe extern "C" fn refuse(_opaque: *mut c_void, errp: *mut *mut CError) -> bool {
    // SAFETY: `errp` points to NULL.
    unsafe { c_error::give(errp, crate::error::Error::invalid("the fan is loose")) };
    false
}

unsafe extern "C" fn refuse_loaded(opaque: *mut c_void, _version: c_int, errp: *mut *mut CError) -> bool {
    // SAFETY: as above.
    unsafe { refuse(opaque, errp) }
}

#[test]
fn errors_of_the_hooks_of_10_2_reach_the_caller() {
    let saves = description(1002, 1 << 16).set(SAVEVM_ABI_VMStateDescription_pre_save_errp, refuse as *const ()).leak();
    let loads = [
        description(1002, 1 << 16).set(SAVEVM_ABI_VMStateDescription_pre_load_errp, refuse as *const ()).leak(),
        description(1002, 1 << 16).set(SAVEVM_ABI_VMStateDescription_post_load_errp, refuse_loaded as *const ()).leak(),
    ];
    let mut value = 1u32;
    let opaque = ptr::from_mut(&mut value).cast::<c_void>();
    in_context(None, |_| {
        let ((file, _sink), mut error) = (writer(), ptr::null_mut());
        let (abi, own) = (layout(1002), SAVEVM_ABI_OWN_VERSION);
        // SAFETY: the table describes the number, the file is open, and `error` is NULL.
        let ret =
            unsafe { savevm_abi_vmstate_save(abi, as_c(&file), saves, opaque, ptr::null_mut(), own, &raw mut error) };
        assert!(ret == -libc::EINVAL && message(error).contains("the fan is loose"));
        for table in loads {
            let file = MigFile::new(Arc::new(Reader::new(vec![0; 8])), false);
            let mut error = ptr::null_mut();
            // SAFETY: as above.
            let ret = unsafe { savevm_abi_vmstate_load(abi, as_c(&file), table, opaque, 1, &raw mut error) };
            assert!(ret == -libc::EINVAL && message(error).contains("the fan is loose"));
        }
    });
}

#[test]
fn list_without_its_end_marker_is_refused_where_the_version_has_one() {
    let mut value = 1u32;
    let opaque = ptr::from_mut(&mut value).cast::<c_void>();
    in_context(None, |_| {
        let table = description(702, 0).leak();
        register_description(702, table, opaque).unwrap();
        let error = register_description(1000, description(1000, 0).leak(), opaque).unwrap_err();
        assert!(error.contains("'numbers'") && error.contains("VMS_END"), "{error}");
        let inner = description(1000, 1 << 16).set(SAVEVM_ABI_VMStateDescription_name, c"other".as_ptr()).leak();
        let list = vec![inner, ptr::null()].leak();
        let outer = description(1000, 1 << 16).set(SAVEVM_ABI_VMStateDescription_subsections, list.as_ptr()).leak();
        let error = register_description(1000, outer, opaque).unwrap_err();
        assert!(error.contains("'other'") && error.contains("'numbers'"), "{error}");
    });
}

/// A list of one number with `flags`, and its description, in a layout in which `moved` has another value.
fn register_with_flags(moved: Option<SaveVMAbiConstantId>, flags: u32) -> Result<(), String> {
    let mut draft = super::tests::Draft::of(1000);
    if let Some(flag) = moved {
        draft.constant(flag).value = 1 << 18;
    }
    let abi: &'static Abi = Box::leak(Box::new(draft.build().unwrap()));
    let table = |of: Struct| Table { abi, words: vec![0; abi.size(of) / size_of::<usize>()] };
    let field = table(Struct::Field)
        .set(SAVEVM_ABI_VMStateField_name, c"number".as_ptr())
        .set(SAVEVM_ABI_VMStateField_size, 4usize)
        .set(SAVEVM_ABI_VMStateField_flags, flags)
        .set(SAVEVM_ABI_VMStateField_info, &raw const vmstate_info_uint32);
    let end = table(Struct::Field).set(SAVEVM_ABI_VMStateField_flags, 1u32 << 16);
    let description = table(Struct::Description)
        .set(SAVEVM_ABI_VMStateDescription_name, c"numbers".as_ptr())
        .set(SAVEVM_ABI_VMStateDescription_fields, [field.words, end.words].concat().leak().as_ptr())
        .leak();
    let (mut value, mut error) = (0u32, ptr::null_mut());
    let (abi, opaque) = (crate::ffi::marshal::castable::lend::<SaveVMAbi>(abi), ptr::from_mut(&mut value).cast());
    in_context(None, |_| {
        // SAFETY: the description is one of the layout, and describes `value`.
        let ret =
            unsafe { savevm_abi_vmstate_register(abi, ptr::null_mut(), 0, description, opaque, -1, 0, &raw mut error) };
        if ret == 0 { Ok(()) } else { Err(message(error)) }
    })
}

#[test]
fn end_marker_is_found_in_a_layout_with_moved_flags() {
    assert_eq!(register_with_flags(None, 1), Ok(()));
    assert_eq!(register_with_flags(Some(SaveVMAbiConstantId::SAVEVM_ABI_VMS_STRUCT), 1), Ok(()));
}

#[test]
fn field_with_a_flag_that_the_layout_does_not_name_is_refused() {
    for moved in [None, Some(SaveVMAbiConstantId::SAVEVM_ABI_VMS_STRUCT)] {
        let error = register_with_flags(moved, 1 | 1 << 19).unwrap_err();
        assert!(error.contains("'numbers'") && error.contains("'number' has flags 0x80000"), "{error}");
    }
}

#[test]
fn early_setup_and_unmigratable_are_read_as_two_booleans_from_8_0_on() {
    let mut value = 1u32;
    let opaque = ptr::from_mut(&mut value).cast::<c_void>();
    for (early, unmigratable) in [(true, false), (false, true), (false, false)] {
        in_context(Some(1000), |vm| {
            let table = description(1000, 1 << 16)
                .set(SAVEVM_ABI_VMStateDescription_early_setup, early)
                .set(SAVEVM_ABI_VMStateDescription_unmigratable, unmigratable);
            register_description(1000, table.leak(), opaque).unwrap();
            assert_eq!(vm.check_migratable().is_err(), unmigratable);
            let (file, sink) = writer();
            // SAFETY: the file is open, and NULL is allowed.
            assert_eq!(unsafe { savevm_state_setup(as_c(&file), ptr::null_mut()) }, 0);
            file.flush();
            assert_eq!(sink.contents().is_empty(), !early);
        });
    }
}

#[test]
fn priority_that_the_version_does_not_have_is_refused() {
    let mut value = 1u32;
    let opaque = ptr::from_mut(&mut value).cast::<c_void>();
    in_context(None, |_| {
        let table = description(1000, 1 << 16).set(SAVEVM_ABI_VMStateDescription_priority, 7u32).leak();
        let error = register_description(1000, table, opaque).unwrap_err();
        assert!(error.contains("priority 7"), "{error}");
    });
}

unsafe extern "C" fn load_part(_opaque: *mut c_void, should_quit: *mut bool, errp: *mut *mut CError) -> bool {
    // SAFETY: the flag of the library.
    assert!(!unsafe { *should_quit });
    // SAFETY: `errp` points to NULL.
    unsafe { c_error::give(errp, crate::error::Error::invalid("a block is missing")) };
    false
}

unsafe extern "C" fn start_thread(_f: *mut QEMUFile, opaque: *mut c_void, _version: c_int) -> c_int {
    // SAFETY: the function ignores its argument.
    unsafe { savevm_start_load_thread(Some(load_part), opaque) }
}

#[test]
fn failing_thread_of_a_load_fails_the_load() {
    in_context(Some(1000), |_| {
        let table = Table::new(1000, Struct::Handlers)
            .set(SAVEVM_ABI_SaveVMHandlers_load_state, start_thread as *const ())
            .leak();
        assert_eq!(register(1000, table, &mut Log::default()), 0);
        let mut stream = b"QEVM\0\0\0\x03\x07\0\0\0\x04none".to_vec();
        stream.extend(b"\x04\0\0\0\0\x01d\0\0\0\0\0\0\0\x01\x7e\0\0\0\0\0");
        let file = MigFile::new(Arc::new(Reader::new(stream)), false);
        let mut error = ptr::null_mut();
        let file = crate::ffi::marshal::c_file::into_c(file);
        // SAFETY: the file is open, and `error` is NULL.
        let ret = unsafe { savevm_load_state(file, &raw mut error) };
        // SAFETY: the file is not used afterwards.
        unsafe { crate::ffi::exports::qemu_file::qemu_fclose(file) };
        let text = message(error);
        assert!(ret < 0 && text.contains("a block is missing"), "{ret} {text}");
    });
}

unsafe extern "C" fn load_twice(
    f: *mut QEMUFile,
    pv: *mut c_void,
    _size: usize,
    _field: *const VMStateField,
    errp: *mut *mut CError,
) -> bool {
    // SAFETY: the file is open, the element is an `u8`, and `errp` points to NULL.
    unsafe {
        let byte = crate::ffi::exports::qemu_file::qemu_get_byte(f) as u8;
        if byte == 0xff {
            c_error::give(errp, crate::error::Error::invalid("too loud"));
            return false;
        }
        *pv.cast::<u8>() = byte * 2;
    }
    true
}

unsafe extern "C" fn save_half(
    f: *mut QEMUFile,
    pv: *mut c_void,
    _size: usize,
    _field: *const VMStateField,
    _vmdesc: *mut crate::ffi::marshal::opaque::JSONWriter,
    _errp: *mut *mut CError,
) -> bool {
    // SAFETY: the file is open, and the element is an `u8`.
    unsafe { crate::ffi::exports::qemu_file::qemu_put_byte(f, (*pv.cast::<u8>() / 2).into()) };
    true
}

/// A device with a number and a value that is halved in the stream.
#[repr(C)]
struct Volume {
    number: u32,
    half: u8,
}

/// A layout as QEMU 11.1 may have it: fields in another order, infos that return errors, a moved end marker, and the
/// pending callbacks replaced by one. No header of 11.1 was read, so this only shows that a description can express it.
#[test]
fn layout_with_reordered_fields_and_infos_with_errors_is_usable() {
    use super::tests::Draft;
    use crate::ffi::types::abi::SaveVMAbiConstantId::SAVEVM_ABI_VMS_END;
    use crate::ffi::types::abi::SaveVMAbiKind::{self, *};
    use crate::ffi::types::abi::SaveVMAbiMember;
    use std::mem::MaybeUninit;
    let mut draft = Draft::of(1002);
    draft.without(SAVEVM_ABI_VMStateField_err_hint);
    let places = [
        (SAVEVM_ABI_VMStateField_name, 0),
        (SAVEVM_ABI_VMStateField_offset, 8),
        (SAVEVM_ABI_VMStateField_size, 16),
        (SAVEVM_ABI_VMStateField_size_offset, 24),
        (SAVEVM_ABI_VMStateField_start, 32),
        (SAVEVM_ABI_VMStateField_num, 40),
        (SAVEVM_ABI_VMStateField_num_offset, 48),
        (SAVEVM_ABI_VMStateField_info, 56),
        (SAVEVM_ABI_VMStateField_flags, 64),
        (SAVEVM_ABI_VMStateField_vmsd, 72),
        (SAVEVM_ABI_VMStateField_version_id, 80),
        (SAVEVM_ABI_VMStateField_struct_version_id, 84),
        (SAVEVM_ABI_VMStateField_field_exists, 88),
    ];
    let moved: Vec<_> = places.iter().map(|(id, offset)| (draft.member(*id).kind, *id, *offset)).collect();
    for (_, id, _) in &moved {
        draft.without(*id);
    }
    let add = |draft: &mut Draft, id: Id, kind: MaybeUninit<SaveVMAbiKind>, offset| {
        draft.members.push(SaveVMAbiMember { member: MaybeUninit::new(id), kind, offset });
    };
    for (kind, id, offset) in moved {
        add(&mut draft, id, kind, offset);
    }
    add(&mut draft, SAVEVM_ABI_VMStateInfo_load, MaybeUninit::new(SAVEVM_ABI_LOAD_ERRP), 24);
    add(&mut draft, SAVEVM_ABI_VMStateInfo_save, MaybeUninit::new(SAVEVM_ABI_SAVE_ERRP), 32);
    let estimate = draft.member(SAVEVM_ABI_SaveVMHandlers_state_pending_estimate).offset;
    draft.without(SAVEVM_ABI_SaveVMHandlers_state_pending_estimate);
    let query = MaybeUninit::new(SAVEVM_ABI_QUERY_PENDING);
    add(&mut draft, SAVEVM_ABI_SaveVMHandlers_save_query_pending, query, estimate);
    draft.sizes = [draft.sizes[0], draft.sizes[1], 96, 40, 24];
    let sums = [
        SAVEVM_ABI_MigPendingData_precopy_bytes,
        SAVEVM_ABI_MigPendingData_stopcopy_bytes,
        SAVEVM_ABI_MigPendingData_postcopy_bytes,
    ];
    for (at, id) in sums.into_iter().enumerate() {
        add(&mut draft, id, MaybeUninit::new(SAVEVM_ABI_UINT64), 8 * at);
    }
    draft.constant(SAVEVM_ABI_VMS_END).value = 1 << 17;
    let abi: &'static Abi = Box::leak(Box::new(draft.build().unwrap()));
    let table = |of: Struct| Table { abi, words: vec![0; abi.size(of) / size_of::<usize>()] };
    let info = table(Struct::Info)
        .set(SAVEVM_ABI_VMStateInfo_name, c"half".as_ptr())
        .set(SAVEVM_ABI_VMStateInfo_load, load_twice as *const ())
        .set(SAVEVM_ABI_VMStateInfo_save, save_half as *const ());
    let field = |name: &'static CStr, offset: usize, size: usize, info: *const c_void| {
        table(Struct::Field)
            .set(SAVEVM_ABI_VMStateField_name, name.as_ptr())
            .set(SAVEVM_ABI_VMStateField_offset, offset)
            .set(SAVEVM_ABI_VMStateField_size, size)
            .set(SAVEVM_ABI_VMStateField_info, info)
            .words
    };
    let own = (&raw const vmstate_info_uint32).cast::<c_void>();
    let end = table(Struct::Field).set(SAVEVM_ABI_VMStateField_flags, 1u32 << 17).words;
    let fields = [field(c"number", 0, 4, own), field(c"half", 4, 1, info.leak()), end].concat().leak();
    let description = table(Struct::Description)
        .set(SAVEVM_ABI_VMStateDescription_name, c"new".as_ptr())
        .set(SAVEVM_ABI_VMStateDescription_version_id, 1 as c_int)
        .set(SAVEVM_ABI_VMStateDescription_minimum_version_id, 1 as c_int)
        .set(SAVEVM_ABI_VMStateDescription_priority, 2u32)
        .set(SAVEVM_ABI_VMStateDescription_fields, fields.as_ptr())
        .leak();
    let layout = ptr::from_ref(abi).cast::<SaveVMAbi>();
    let mut state = Volume { number: 0x0102_0304, half: 8 };
    let opaque = ptr::from_mut(&mut state).cast::<c_void>();
    in_context(None, |_| {
        let (file, sink) = writer();
        let (none, own) = (ptr::null_mut(), SAVEVM_ABI_OWN_VERSION);
        // SAFETY: the tables are of the layout and describe the state, and the file is open.
        let ret = unsafe {
            savevm_abi_vmstate_register(layout, none, 0, description, opaque, -1, 0, ptr::null_mut())
                + savevm_abi_vmstate_save(
                    layout,
                    as_c(&file),
                    description,
                    opaque,
                    ptr::null_mut(),
                    own,
                    ptr::null_mut(),
                )
        };
        file.flush();
        assert_eq!((ret, sink.contents()), (0, vec![1, 2, 3, 4, 4]));
        for (bytes, expected) in [(vec![0, 0, 0, 9, 5, 0], ""), (vec![0, 0, 0, 9, 0xff, 0], "too loud")] {
            let (file, mut error) = (MigFile::new(Arc::new(Reader::new(bytes)), false), ptr::null_mut());
            // SAFETY: as above, and `error` is NULL.
            let ret = unsafe { savevm_abi_vmstate_load(layout, as_c(&file), description, opaque, 1, &raw mut error) };
            assert_eq!(ret, if expected.is_empty() { 0 } else { -libc::EINVAL });
            assert!(message(error).contains(expected));
        }
    });
    assert_eq!((state.number, state.half), (9, 10));
}

#[test]
fn loads_with_an_error_report_what_failed() {
    in_context(Some(1002), |_| {
        type Load = unsafe extern "C" fn(*mut QEMUFile, *mut *mut CError) -> c_int;
        for load in [savevm_load_state as Load, savevm_load_state_main, savevm_load_device_state] {
            let file = || MigFile::new(Arc::new(Reader::new(vec![0x55; 16])), false);
            let (file, mut error) = (file(), ptr::null_mut());
            // SAFETY: the file is open, and `error` is NULL.
            assert_eq!(unsafe { load(as_c(&file), &raw mut error) }, -libc::EINVAL);
            assert!(message(error).contains("0x55"));
            let mut error = ptr::null_mut();
            // SAFETY: NULL is allowed.
            assert_eq!(unsafe { load(ptr::null_mut(), &raw mut error) }, -libc::EINVAL);
            assert!(message(error).contains("NULL"));
        }
        let file = MigFile::new(Arc::new(Reader::new(vec![0])), false);
        // SAFETY: the file is open.
        assert_eq!(unsafe { savevm_load_state_main(as_c(&file), ptr::null_mut()) }, 0);
    });
}

#[test]
fn packaged_stream_is_flushed() {
    in_context(Some(1002), |_| {
        let (file, sink) = writer();
        // SAFETY: the file is open, and the buffer has one byte.
        assert_eq!(unsafe { qemu_savevm_send_packaged(as_c(&file), c"x".as_ptr().cast(), 1) }, 0);
        assert_eq!(sink.contents(), b"\x08\0\x07\0\x04\0\0\0\x01x");
    });
}
