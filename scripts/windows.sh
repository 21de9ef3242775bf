#!/usr/bin/env bash
# Builds oomscope.exe for 64-bit Windows where only Debian's packages and crates.io can be had, and
# with `test` runs it under Wine against the Linux build.
#
# On an ordinary machine this is enough: rustup target add x86_64-pc-windows-gnu, mingw-w64, and
# cargo build --release --target x86_64-pc-windows-gnu.
#
# Debian has no std for the target, so cargo builds it from Debian's source of the same compiler.
#
#   scripts/windows.sh          target/windows/oomscope.exe
#   scripts/windows.sh test     builds both programs and compares what they say
#   PROFILE=dev scripts/windows.sh …   another profile of Cargo.toml
set -euo pipefail
cd "$(dirname "$0")/.."

triple=x86_64-pc-windows-gnu
profile=${PROFILE:-release}
work=$PWD/target/windows
root=$work/rust
mkdir -p "$work"

say() { printf '\n== %s\n' "$*"; }

sudo=$(command -v sudo || true)
need=()
command -v x86_64-w64-mingw32-gcc >/dev/null || need+=(mingw-w64)
if [[ ${1:-} == test ]]; then
    command -v wine >/dev/null || need+=(wine wine64)
fi
fresh=1
update() { ((fresh)) && $sudo apt-get update -q >/dev/null; fresh=0; }
if ((${#need[@]})); then
    say "packages: ${need[*]}"
    update || true
    $sudo apt-get install -y -q --no-install-recommends "${need[@]}" >/dev/null
fi

# 1. A compiler and the source of its std, unpacked into one folder; nothing of it is installed.
if [[ ! -x $root/usr/bin/rustc ]]; then
    say "compiler and std source"
    update || true
    rm -rf "$root"
    mkdir -p "$root" "$work/packages"
    version=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: libstd-rust-web-\([0-9.]*\)$/\1/p' | head -n 1)
    llvm=$(apt-cache depends "libstd-rust-web-$version" | sed -n 's/.*Depends: \(libllvm[0-9]*\).*/\1/p' | head -n 1)
    (cd "$work/packages" && rm -f ./*.deb &&
        apt-get download -q rustc-web "libstd-rust-web-$version" libstd-rust-web-dev rust-web-src "$llvm")
    for it in "$work"/packages/*.deb; do dpkg -x "$it" "$root"; done
    rm -rf "$work/packages"
    # build-std looks for the library there.
    mkdir -p "$root/usr/lib/rustlib/src"
    ln -sfn "$(ls -d "$root"/usr/src/rustc-*)" "$root/usr/lib/rustlib/src/rust"
fi
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
export RUSTC=$root/usr/bin/rustc RUSTC_BOOTSTRAP=1

# 2. The objects that frame every program of this target.
library=$root/usr/lib/rustlib/$triple/lib
if [[ ! -f $library/rsend.o ]]; then
    mkdir -p "$library"
    for it in rsbegin rsend; do
        "$RUSTC" --target $triple --edition 2024 --cap-lints allow --emit=obj -o "$library/$it.o" \
            "$root/usr/lib/rustlib/src/rust/library/rtstartup/$it.rs"
    done
fi

# 3. The program.
say "oomscope.exe ($profile)"
# A folder of its own: another compiler's objects would be built anew at each change of hands.
export CARGO_TARGET_DIR=$work/target CARGO_PROFILE_RELEASE_STRIP=debuginfo
cargo build --locked --profile "$profile" -Zbuild-std=std,panic_unwind --target $triple \
    --config "target.$triple.linker='x86_64-w64-mingw32-gcc'"
folder=$profile
[[ $profile == dev ]] && folder=debug
cp "$work/target/$triple/$folder/oomscope.exe" "$work/oomscope.exe"
ls -l "$work/oomscope.exe"
[[ ${1:-} == test ]] || exit 0

# 4. Wine before version 9 lacks bcryptprimitives.dll, without which a Rust program ends silently.
say "under Wine"
cat >"$work/random.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    return SystemFunction036(data, (ULONG)size);
}
C
x86_64-w64-mingw32-gcc -shared -O1 -o "$work/bcryptprimitives.dll" "$work/random.c" -ladvapi32
rm "$work/random.c"

unset LD_LIBRARY_PATH RUSTC RUSTC_BOOTSTRAP CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_STRIP
cargo build --locked --profile "$profile"
linux=target/$folder/oomscope
home=$(mktemp -d)
trap 'WINEPREFIX=$home/prefix wineserver -k 2>/dev/null || true; rm -rf "$home"' EXIT
# An empty environment: both programs see the same variables.
windows() {
    env -i PATH=/usr/bin:/bin HOME="$home" WINEDEBUG=-all WINEPREFIX="$home/prefix" \
        WINEDLLOVERRIDES="mscoree,mshtml=" wine "$work/oomscope.exe" "$@" </dev/null
}
windows --version

compared=0
compare() { # DUMP ARGS…: what both programs say about it
    local dump=$1
    shift
    local name
    name=$(basename "$dump")
    cp "$dump" "$home/$name"
    (cd "$home" && windows "$@" "$name") | tr -d '\r' >"$home/windows.out"
    (cd "$home" && env -i PATH=/usr/bin:/bin "$OLDPWD/$linux" "$@" "$name") >"$home/linux.out"
    cmp "$home/linux.out" "$home/windows.out" || { echo "differs: $name $*"; exit 1; }
    rm "$home/$name"
    compared=$((compared + 1))
}
dumps=(samples/*.dmp)
# Two real dumps, where they are.
for it in wine/native-x64-procdump real/fizzbuzz_wow64; do
    for packed in "${OOMSCOPE_DUMPS:-../shared/dumps}/$it".dmp.zst; do
        [[ -f $packed ]] || { echo "not there, so not compared: $it"; continue; }
        zstd -qdf "$packed" -o "$work/$(basename "$packed" .zst)"
        dumps+=("$work/$(basename "$packed" .zst)")
    done
done
for dump in "${dumps[@]}"; do
    compare "$dump" report
    compare "$dump" report --format json
    compare "$dump" report --format html
done
echo "$compared reports are equal on Windows and Linux"

# 5. A dump that is dropped on the program: HTML beside it, and the window waits for a key.
cp samples/"$(basename "${dumps[0]}")" "$home/dropped.dmp"
(cd "$home" && windows --dropped dropped.dmp) | tee "$home/dropped.out"
[[ -s $home/dropped.dmp.oomscope.html ]] || { echo "no HTML was written beside the dump"; exit 1; }
grep -q '<!doctype html>' "$home/dropped.dmp.oomscope.html"
say "done"
