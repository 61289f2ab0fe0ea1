#!/bin/bash
# Prepare a folder with Python for 64-bit ARM and the inference engines, to run under QEMU on x86.
#
#   studies/arm/root.sh DIR
#   DIR/python SCRIPT [ARGUMENT...]
#
# Needs Debian, root, gcc and a Python with pip. Was run on Debian 12 (QEMU 7.2, Python 3.11). No other system was tried.
# The second command runs a script with NumPy, LiteRT, ncnn and ONNX Runtime. With COUNT=FILE, it also writes to FILE the
# number of instructions executed before each call of os.getppid (see count.c).
# Results only: times under emulation say nothing about ARM.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: root.sh DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "$1")
python=${PYTHON:-python3}
mkdir -p "$dir"/{apt/lists/partial,apt/archives/partial,root/proc,wheels,packages}
cd "$dir"

# qemu-user, not qemu-user-static: only the dynamic program loads plug-ins.
command -v qemu-aarch64 >/dev/null || { apt-get -qq update; apt-get -qq -y install qemu-user >/dev/null; }
gcc -shared -fPIC -O2 -o count.so "$here/count.c"

# A package database of its own keeps the packages of this machine unchanged.
touch apt/status
arm_apt() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::status="$dir/apt/status" \
    -o Dir::State::Lists="$dir/apt/lists" -o Dir::Cache="$dir/apt" "$@"
}
arm_apt update
arm_apt -y --no-install-recommends --download-only install python3-minimal libpython3-stdlib libstdc++6 libgomp1 >/dev/null
for package in apt/archives/*.deb; do dpkg -x "$package" root; done
arm_python=$(find "$dir/root/usr/bin" -name 'python3.*' | head -n 1)
version=${arm_python##*/python}

# pip evaluates markers for this machine, so dependencies are listed here instead.
tags=(manylinux2014_aarch64 manylinux_2_17_aarch64 manylinux_2_24_aarch64 manylinux_2_27_aarch64 manylinux_2_28_aarch64)
$python -m pip download -q -d wheels --no-deps --only-binary=:all: --python-version "$version" \
  --platform any "${tags[@]/#/--platform=}" \
  numpy ai-edge-litert ncnn onnxruntime flatbuffers protobuf ml_dtypes typing_extensions backports.strenum packaging tqdm
for wheel in wheels/*.whl; do $python -m zipfile -e "$wheel" packages; done

# LiteRT and ONNX Runtime crash on the /proc/cpuinfo of an x86 processor. This one is of a Cortex-A76.
features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
for number in 0 1; do
  printf '%s\t: %s\n' processor $number BogoMIPS 50.00 Features "$features" 'CPU implementer' 0x41 \
    'CPU architecture' 8 'CPU variant' 0x4 'CPU part' 0xd0b 'CPU revision' 1
  echo
done >root/proc/cpuinfo

cat >python <<END
#!/bin/bash
export PYTHONHOME=$dir/root/usr PYTHONPATH=$dir/packages OMP_NUM_THREADS=1
exec qemu-aarch64 -cpu cortex-a76 -L $dir/root \${COUNT:+-plugin "file=$dir/count.so,out=\$COUNT"} $arm_python "\$@"
END
chmod +x python
./python -c "import platform; print('ready:', platform.machine(), 'Python', platform.python_version())"
