//! All unsafe code of the project: what the safe bindings lack or do wrongly.
//!
//! - Lacking there: events of domains, the close callback, cancelling a job, which job it is,
//!   the switch to post-copy.
//! - Wrong there (virt 0.4.3): `migrate3` and `migrate_to_uri3` leak every string
//!   parameter, `get_job_info` reads a value that is dead by then.
//! - Not libvirt: the lease that tells whether a file has a writer, and the descriptors that
//!   this process got at its start.
//!
//! Callbacks only hand over numbers; a panic in one is caught before it reaches
//! C. Must not know: what the numbers mean.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// What is told of every lifecycle event of a host: domain, event, detail.
pub(crate) type OnLifecycle = Box<dyn Fn(Uuid, c_int, c_int) + Send + Sync>;

/// What is told of every pass over a domain's memory: domain, number from 1 on.
pub(crate) type OnIteration = Box<dyn Fn(Uuid, c_int) + Send + Sync>;

/// What is told when a connection breaks: libvirt's reason.
pub(crate) type OnClose = Box<dyn Fn(c_int) + Send + Sync>;

/// Asks for the lifecycle events of all domains. The answer is the number to
/// take it back with; the closure lives until then, or until the connection ends.
pub(crate) fn register_lifecycle(conn: &Connect, tell: OnLifecycle) -> Result<c_int, Error> {
    type Callback = unsafe extern "C" fn(
        sys::virConnectPtr,
        sys::virDomainPtr,
        c_int,
        c_int,
        *mut c_void,
    ) -> c_int;

    // SAFETY: libvirt casts the pointer back to this very type before it calls
    // it, by the event's number; that cast is how its interface is meant.
    let callback = unsafe { std::mem::transmute::<Callback, Generic>(on_lifecycle) };
    // SAFETY: the callback is that of this event, and takes what is boxed.
    unsafe { register(conn, sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, callback, tell) }
}

/// Asks for every pass over the memory of any domain that migrates; else as
/// [`register_lifecycle`].
pub(crate) fn register_iteration(conn: &Connect, tell: OnIteration) -> Result<c_int, Error> {
    type Callback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *mut c_void);

    let event = sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION;
    // SAFETY: as in `register_lifecycle`.
    let callback = unsafe { std::mem::transmute::<Callback, Generic>(on_iteration) };
    // SAFETY: the callback is that of this event, and takes what is boxed.
    unsafe { register(conn, event, callback, tell) }
}

/// What is told when a domain gets or loses a device while it runs: the domain.
pub(crate) type OnDevice = Box<dyn Fn(Uuid) + Send + Sync>;

/// Asks for the devices that any domain gets or loses while it runs; two numbers, each else as
/// that of [`register_lifecycle`].
pub(crate) fn register_devices(
    conn: &Connect,
    mut tell: impl FnMut() -> OnDevice,
) -> Result<[c_int; 2], Error> {
    type Callback =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);

    let mut register_for = |event| {
        // SAFETY: as in `register_lifecycle`; both events call the same type.
        let callback = unsafe { std::mem::transmute::<Callback, Generic>(on_device) };
        // SAFETY: the callback is that of these events, and takes what is boxed.
        unsafe { register(conn, event, callback, tell()) }
    };
    let added = register_for(sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED)?;
    match register_for(sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED) {
        Ok(removed) => Ok([added, removed]),
        Err(error) => {
            drop(deregister(conn, added));
            Err(error)
        }
    }
}

/// What all callbacks of events are cast to.
type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// # Safety
/// `callback` must be what libvirt calls for `event`, cast, and take a `T` as its
/// last argument.
unsafe fn register<T>(
    conn: &Connect,
    event: sys::virDomainEventID,
    callback: Generic,
    tell: T,
) -> Result<c_int, Error> {
    // Twice a box: a pointer to a trait object is two words, `opaque` is one.
    let opaque = Box::into_raw(Box::new(tell)).cast::<c_void>();
    // SAFETY: the connection is open while `conn` is borrowed; a null domain
    // means all of them; `opaque` is what both callbacks expect.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            conn.as_ptr(),
            ptr::null_mut(),
            event.cast_signed(),
            Some(callback),
            opaque,
            Some(free_boxed::<T>),
        )
    };
    // 0 is a valid number.
    if id < 0 {
        let error = Error::last_error();
        // SAFETY: refused, so libvirt keeps no pointer to it and will not free it.
        unsafe { free_boxed::<T>(opaque) };
        return Err(error);
    }
    Ok(id)
}

/// Takes [`register_lifecycle`] or [`register_iteration`] back.
pub(crate) fn deregister(conn: &Connect, id: c_int) -> Result<(), Error> {
    // SAFETY: the connection is open while `conn` is borrowed; libvirt refuses
    // a number that it does not know.
    let done = unsafe { sys::virConnectDomainEventDeregisterAny(conn.as_ptr(), id) };
    if done < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// Asks to be told when the connection breaks. At most one for each connection.
pub(crate) fn register_close(conn: &Connect, tell: OnClose) -> Result<(), Error> {
    let opaque = Box::into_raw(Box::new(tell)).cast::<c_void>();
    // SAFETY: as in `register_lifecycle`.
    let done = unsafe {
        sys::virConnectRegisterCloseCallback(
            conn.as_ptr(),
            Some(on_close),
            opaque,
            Some(free_boxed::<OnClose>),
        )
    };
    if done < 0 {
        let error = Error::last_error();
        // SAFETY: refused, so libvirt keeps no pointer to it and will not free it.
        unsafe { free_boxed::<OnClose>(opaque) };
        return Err(error);
    }
    Ok(())
}

/// Takes [`register_close`] back: while it stands, the connection never ends.
pub(crate) fn unregister_close(conn: &Connect) -> Result<(), Error> {
    // SAFETY: the connection is open while `conn` is borrowed; libvirt refuses
    // where nothing is registered.
    let done = unsafe { sys::virConnectUnregisterCloseCallback(conn.as_ptr(), Some(on_close)) };
    if done < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

unsafe extern "C" fn on_lifecycle(
    _conn: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt lends the domain for the time of this call; `opaque` is the
    // box of `register_lifecycle`.
    unsafe { told::<OnLifecycle>(domain, opaque, |tell, uuid| tell(uuid, event, detail)) };
    0
}

unsafe extern "C" fn on_iteration(
    _conn: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    iteration: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`, of `register_iteration`.
    unsafe { told::<OnIteration>(domain, opaque, |tell, uuid| tell(uuid, iteration)) };
}

unsafe extern "C" fn on_device(
    _conn: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`, of `register_devices`.
    unsafe { told::<OnDevice>(domain, opaque, |tell, uuid| tell(uuid)) };
}

/// # Safety
/// `domain` must be one that libvirt lends, `opaque` the box of a `T`: it is freed
/// only by `free_boxed`, which libvirt calls after the last call of a callback.
unsafe fn told<T>(domain: sys::virDomainPtr, opaque: *mut c_void, tell: impl FnOnce(&T, Uuid)) {
    let mut uuid = [0_u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: the caller's promise; libvirt writes exactly VIR_UUID_BUFLEN bytes.
    if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0 {
        // SAFETY: the caller's promise.
        let boxed = unsafe { &*opaque.cast::<T>() };
        drop(catch_unwind(AssertUnwindSafe(|| {
            tell(boxed, Uuid::from_bytes(uuid));
        })));
    }
}

unsafe extern "C" fn on_close(_conn: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the box of `register_close`, alive as in `told`.
    let tell = unsafe { &*opaque.cast::<OnClose>() };
    drop(catch_unwind(AssertUnwindSafe(|| tell(reason))));
}

/// Frees what `register_*` boxed.
///
/// # Safety
/// `opaque` came from `Box::into_raw` of a `Box<T>` and is used by nobody after.
unsafe extern "C" fn free_boxed<T>(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    let boxed = unsafe { Box::from_raw(opaque.cast::<T>()) };
    drop(catch_unwind(AssertUnwindSafe(|| drop(boxed))));
}

/// Ends the job (a migration) that runs on the domain.
pub(crate) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is held while `domain` is borrowed.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// Switches a running migration to post-copy.
pub(crate) fn start_post_copy(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is held while `domain` is borrowed; there are no flags.
    if unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) } < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// How far the domain's job is.
pub(crate) fn job_info(domain: &Domain) -> Result<sys::virDomainJobInfo, Error> {
    let mut info = MaybeUninit::<sys::virDomainJobInfo>::zeroed();
    // SAFETY: the domain is held while `domain` is borrowed; `info` is as large
    // as libvirt believes, since the binding is made from its header.
    if unsafe { sys::virDomainGetJobInfo(domain.as_ptr(), info.as_mut_ptr()) } < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: plain integers, of which zero is one; libvirt has filled them in.
    Ok(unsafe { info.assume_init() })
}

/// Which operation the domain's job is, as libvirt's number; `None` where no job runs.
pub(crate) fn job_operation(domain: &Domain) -> Result<Option<c_int>, Error> {
    let (mut kind, mut params, mut count) = (0, ptr::null_mut(), 0);
    // SAFETY: the domain is held while `domain` is borrowed; libvirt writes a kind, a list that
    // it allocates, and its length.
    let done = unsafe {
        sys::virDomainGetJobStats(
            domain.as_ptr(),
            &raw mut kind,
            &raw mut params,
            &raw mut count,
            0,
        )
    };
    if done < 0 {
        return Err(Error::last_error());
    }
    let length = match params.is_null() {
        true => 0,
        false => usize::try_from(count).unwrap_or(0),
    };
    let mut operation = None;
    for index in 0..length {
        // SAFETY: the list has `length` parameters, which live until they are freed below.
        let param = unsafe { &*params.add(index) };
        // SAFETY: libvirt ends the name of a parameter with a NUL, within its array.
        let name = unsafe { CStr::from_ptr(param.field.as_ptr()) };
        if name == sys::VIR_DOMAIN_JOB_OPERATION
            && param.type_ == sys::VIR_TYPED_PARAM_INT.cast_signed()
        {
            // SAFETY: its type says that it is an integer.
            operation = Some(unsafe { param.value.i });
        }
    }
    // SAFETY: the list is ours by the call above, and not used after.
    unsafe { sys::virTypedParamsFree(params, count) };
    let none = sys::VIR_DOMAIN_JOB_NONE.cast_signed();
    Ok(operation.filter(|_| kind != none))
}

/// The value of a typed parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i32),
    ULong(u64),
    Text(CString),
}

/// A parameter by its name.
pub(crate) type Param = (&'static CStr, Value);

/// Parameters as libvirt wants them. They point into `params`, which therefore
/// has to outlive them; libvirt only reads.
fn typed(params: &[Param]) -> Vec<sys::virTypedParameter> {
    let typed = |(name, value): &Param| {
        let (kind, value) = match value {
            Value::Int(i) => (
                sys::VIR_TYPED_PARAM_INT,
                sys::_virTypedParameterValue { i: *i },
            ),
            Value::ULong(ul) => (
                sys::VIR_TYPED_PARAM_ULLONG,
                sys::_virTypedParameterValue { ul: *ul },
            ),
            Value::Text(text) => (
                sys::VIR_TYPED_PARAM_STRING,
                sys::_virTypedParameterValue {
                    s: text.as_ptr().cast_mut(),
                },
            ),
        };
        sys::virTypedParameter {
            field: field(name),
            type_: kind.cast_signed(),
            value,
        }
    };
    params.iter().map(typed).collect()
}

fn count(typed: &[sys::virTypedParameter]) -> u32 {
    u32::try_from(typed.len()).unwrap_or(u32::MAX)
}

fn field(name: &CStr) -> [c_char; 80] {
    let mut field = [0; 80];
    // The last one stays 0.
    for (to, from) in field.iter_mut().take(79).zip(name.to_bytes()) {
        *to = from.cast_signed();
    }
    field
}

/// Migrates, driven by this process over both connections; blocks until it is over.
pub(crate) fn migrate3(
    domain: &Domain,
    dest: &Connect,
    params: &[Param],
    flags: u32,
) -> Result<(), Error> {
    let mut typed = typed(params);
    // SAFETY: domain and connection are held while they are borrowed; `typed`,
    // and `params` that it points into, outlive the call, which only reads them.
    let moved = unsafe {
        sys::virDomainMigrate3(
            domain.as_ptr(),
            dest.as_ptr(),
            typed.as_mut_ptr(),
            count(&typed),
            flags,
        )
    };
    if moved.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: ours by the call above, and not used after.
    unsafe { sys::virDomainFree(moved) };
    Ok(())
}

/// Migrates, driven by the source's libvirtd; blocks until it is over.
pub(crate) fn migrate_to_uri3(
    domain: &Domain,
    dest: &CStr,
    params: &[Param],
    flags: u32,
) -> Result<(), Error> {
    let mut typed = typed(params);
    // SAFETY: as in `migrate3`; `dest` ends with a NUL and outlives the call.
    let done = unsafe {
        sys::virDomainMigrateToURI3(
            domain.as_ptr(),
            dest.as_ptr(),
            typed.as_mut_ptr(),
            count(&typed),
            flags,
        )
    };
    if done < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// From Linux's `asm-generic/fcntl.h`; `libc` lacks it.
const F_SETSIG: c_int = 10;

/// Takes a read lease on the file and gives it back at once. It is granted only
/// while nobody has the file open for writing.
///
/// # Errors
/// EAGAIN while somebody has; anything else where the question cannot be asked.
pub(crate) fn try_read_lease(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    let fcntl = |command: c_int, argument: c_int| -> io::Result<()> {
        // SAFETY: `fd` is open while `file` is borrowed; these commands take a
        // number and touch no memory.
        if unsafe { libc::fcntl(fd, command, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // Whoever opens the file for writing in between makes the kernel send a
    // signal: SIGIO, whose default ends the process, unless another is named.
    fcntl(F_SETSIG, libc::SIGURG)?;
    fcntl(libc::F_SETLEASE, libc::F_RDLCK)?;
    // A lease that is held makes the next writer wait in open().
    fcntl(libc::F_SETLEASE, libc::F_UNLCK)
}

/// Takes a descriptor that this process got by `exec`, and sets that the next `exec` closes it;
/// `None` where there is none, or it was taken before.
///
/// `exec` leaves only descriptors open that are not to be closed by it, and whatever this
/// process opens is to be closed: so one that is not was opened by nobody here.
pub(crate) fn take_inherited(number: c_int) -> Option<OwnedFd> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    if number <= libc::STDERR_FILENO {
        return None;
    }
    let _taking = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the command takes no argument and touches no memory; a number that is no
    // descriptor is refused.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: as above; the argument is a number.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, and nobody in this process owns it: it was not opened here, and the
    // mark that was set under the lock keeps it from being taken twice.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_carry_their_values() {
        let long = CString::new("x".repeat(200)).unwrap();
        let params = vec![
            (
                sys::VIR_MIGRATE_PARAM_URI,
                Value::Text(c"tcp://h2".to_owned()),
            ),
            (sys::VIR_MIGRATE_PARAM_BANDWIDTH, Value::ULong(u64::MAX)),
            (sys::VIR_MIGRATE_PARAM_DISKS_PORT, Value::Int(-7)),
            (sys::VIR_MIGRATE_PARAM_DEST_XML, Value::Text(long.clone())),
        ];
        let typed = typed(&params);
        assert_eq!(count(&typed), 4);
        // SAFETY: each value is read as the kind it was made as, while `params` lives.
        unsafe {
            let text = |i: usize| CStr::from_ptr(typed[i].value.s);
            assert_eq!(text(0), c"tcp://h2");
            assert_eq!(text(3), long.as_c_str());
            assert_eq!(typed[1].value.ul, u64::MAX);
            assert_eq!(typed[2].value.i, -7);
            let name = CStr::from_ptr(typed[1].field.as_ptr());
            assert_eq!(name, sys::VIR_MIGRATE_PARAM_BANDWIDTH);
        }
    }

    #[test]
    fn what_this_process_opened_is_not_taken() {
        let opened = File::open("/dev/null").unwrap();
        assert!(take_inherited(opened.as_raw_fd()).is_none());
        assert!(take_inherited(1).is_none(), "standard output is nobody's");
        assert!(take_inherited(1 << 20).is_none(), "there is none");
    }

    #[test]
    fn a_name_never_fills_its_array() {
        let field = field(CString::new("n".repeat(200)).unwrap().as_c_str());
        assert_eq!(field.iter().filter(|&&c| c != 0).count(), 79);
        assert_eq!(field[79], 0);
    }
}
