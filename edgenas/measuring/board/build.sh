#!/bin/bash
# Builds the system of the virtual boards: a Debian arm64 kernel and a root file system in memory.
#   build.sh OUTPUT_FOLDER USER_PUBLIC_KEY PYTHON
# Needs root, mmdebstrap, cpio, kmod and ssh-keygen; PYTHON's pip fetches the wheels for arm64.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
output=$(realpath -m "$1"); public_key=$(realpath "$2"); python=$3
root=$output/root
trap 'rm -rf "$root"' EXIT
mkdir -p "$output"; rm -rf "$root"

mmdebstrap --quiet --mode=root --arch=arm64 --variant=extract \
  --include=python3,openssh-server,bash,dash,coreutils,mount,procps,grep,sed,tar,gzip,libstdc++6,linux-image-cloud-arm64 \
  bookworm "$root"
mv "$root"/boot/vmlinuz-* "$output/vmlinuz"

# Of the kernel's modules only the network card's are loaded: those that modules.dep lists for it,
# each after the ones that it needs.
release=$(ls "$root/lib/modules")
depmod -b "$root" "$release"
mkdir "$root/modules"
for name in virtio_pci virtio_net; do
  line=$(grep -E "/$name\.ko(\.xz)?:" "$root/lib/modules/$release/modules.dep")
  for module in $(echo "${line//:/}" | tr ' ' '\n' | tac); do
    file=$(basename "$module")
    [ -e "$root/modules/$file" ] && continue
    cp "$root/lib/modules/$release/$module" "$root/modules/$file"
    echo "$file" >> "$root/modules/order"
  done
done

packages=$root/usr/local/lib/python3.11/dist-packages
"$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
  --target "$packages" --only-binary=:all: \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  --python-version 3.11 --implementation cp --requirement "$here/requirements.txt"

# The whole system lives in the board's memory, so what no measurement reads goes.
rm -rf "$root"/boot "$root"/lib/modules "$root"/usr/lib/modules "$root"/var/cache/apt "$root"/var/lib/apt/lists \
  "$root"/usr/share/{doc,man,locale,info,lintian,zoneinfo,bash-completion,perl,initramfs-tools} \
  "$root"/usr/lib/aarch64-linux-gnu/{perl*,gconv} "$root"/usr/lib/{linux-image-*,klibc} "$root"/lib/udev \
  "$packages"/onnxruntime/{quantization,tools,transformers} "$packages"/numpy/{distutils,f2py}
find "$packages" -type d -name tests -prune -exec rm -rf {} +

# Compiling the modules there, in an emulated processor and at every start anew, takes most of a start.
# Only the same Python can compile them here; without it the board is slower and nothing else.
compiler=$(command -v python3.11 || true)
[ -z "$compiler" ] || "$compiler" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$root" -p / \
  "$root/usr/lib/python3.11" "$packages" || true

cat > "$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
pi:x:1000:1000:pi:/home/pi:/bin/bash
PASSWD
printf 'root:x:0:\nnogroup:x:65534:\ntty:x:5:\npi:x:1000:\n' > "$root/etc/group"
printf '%s:*:19000:0:99999:7:::\n' root sshd pi > "$root/etc/shadow"
chmod 600 "$root/etc/shadow"
mkdir -p "$root/run/sshd" "$root/home/pi/.ssh"
cp "$public_key" "$root/home/pi/.ssh/authorized_keys"
chown -R 1000:1000 "$root/home/pi"
chmod 700 "$root/home/pi/.ssh"
ssh-keygen -q -t ed25519 -N '' -C board -f "$root/etc/ssh/board_key"
cp "$root/etc/ssh/board_key.pub" "$output/host_key.pub"
cat > "$root/etc/ssh/sshd_config" <<'SSHD'
HostKey /etc/ssh/board_key
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
LoginGraceTime 0
# Of the safe algorithms those that an emulated processor computes fastest.
KexAlgorithms curve25519-sha256
SSHD
# The agent reads this: the clock of this system counts instructions.
touch "$root/etc/edgenas-virtual-clock"
install -m 755 "$here/init" "$root/init"
install -m 644 "$here/network.py" "$root/network.py"
(cd "$root" && find . | cpio --create --format=newc --quiet) > "$output/initrd"
