#!/bin/sh
# Unpacks Debian 11's PDAL 2.2 and what it needs below a folder, beside the system's own libraries;
# nothing is installed and no root is needed. Needs apt, dpkg-deb and a network.
#   tests/pdal/install_pdal.sh FOLDER      afterwards: PATH=FOLDER/bin:$PATH
set -eu
target=$1
if [ -x "$target/bin/pdal" ] && "$target/bin/pdal" --version >/dev/null 2>&1; then
    exit 0
fi
mkdir -p "$target/apt/lists/partial" "$target/apt/archives/partial" "$target/root" "$target/bin"
target=$(cd "$target" && pwd)
: >"$target/apt/status"
cat >"$target/apt/sources.list" <<LIST
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main
LIST
cat >"$target/apt/apt.conf" <<CONF
Dir::State "$target/apt";
Dir::State::status "$target/apt/status";
Dir::Cache "$target/apt";
Dir::Etc::sourcelist "$target/apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Install-Recommends "false";
CONF
export APT_CONFIG="$target/apt/apt.conf"
apt-get update -qq
apt-get install -qq -y --download-only pdal
# The system's C and C++ libraries are newer and stay.
for package in "$target"/apt/archives/*.deb; do
    case ${package##*/} in
    libc6_* | libstdc++6_* | libgcc-s1_* | gcc-*-base_* | libcrypt1_* | libc-bin_*) ;;
    *) dpkg-deb -x "$package" "$target/root" ;;
    esac
done
rm -rf "$target/apt/archives"
cat >"$target/bin/pdal" <<RUN
#!/bin/sh
lib="$target/root/usr/lib/\$(uname -m)-linux-gnu"
export LD_LIBRARY_PATH="$target/root/usr/lib:\$lib:\$lib/blas:\$lib/lapack:$target/root/lib/\$(uname -m)-linux-gnu"
export PROJ_LIB="$target/root/usr/share/proj" GDAL_DATA="$target/root/usr/share/gdal"
exec "$target/root/usr/bin/pdal" "\$@"
RUN
chmod +x "$target/bin/pdal"
"$target/bin/pdal" --version
