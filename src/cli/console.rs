//! Whether the program was started with a console of its own, as Explorer does.

/// Whether nobody else uses this console: it opened for this program and closes with it.
#[cfg(windows)]
pub(super) fn is_own() -> bool {
    use windows_sys::Win32::System::Console::GetConsoleProcessList;
    let mut processes = [0; 2];
    // The call writes at most as many ids as it is told there is room for, and returns how many
    // processes there are; 0 where there is no console.
    #[allow(unsafe_code)]
    let count = unsafe { GetConsoleProcessList(processes.as_mut_ptr(), 2) };
    count == 1
}

/// Elsewhere a program is not given a console.
#[cfg(not(windows))]
pub(super) fn is_own() -> bool {
    false
}
