//! The guest's interfaces: loopback, and, where the host has given one, a network device.
//!
//! Addresses are those of [`firelane_guest_proto::network`]. Source of the requests: netdevice(7), rtnetlink's
//! older `SIOCADDRT` in `linux/route.h`.

#![expect(unsafe_code, reason = "interface requests have no safe wrapper")]

use std::fs;
use std::io;
use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use firelane_guest_proto::network::{DEVICE, GATEWAY, GUEST, PREFIX};
use rustix::net::{AddressFamily, SocketType, socket};

/// Names are asked of the host's resolver, and of nobody else.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Brings up `lo`; the kernel gives it its addresses.
pub(crate) fn loopback_up() -> io::Result<()> {
    up(&any_socket()?, "lo")
}

/// Brings up the network device, if there is one.
pub(crate) fn device_up() -> io::Result<()> {
    if !Path::new("/sys/class/net").join(DEVICE).exists() {
        return Ok(());
    }
    // There is no IPv6 behind it: a program that tried would wait for nothing.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6");
    if Path::new(&ipv6).exists() {
        fs::write(ipv6, "1")?;
    }
    let socket = any_socket()?;
    let mask = Ipv4Addr::from_bits(u32::MAX << (32 - PREFIX));
    set_address(&socket, libc::SIOCSIFADDR, GUEST)?;
    set_address(&socket, libc::SIOCSIFNETMASK, mask)?;
    up(&socket, DEVICE)?;
    default_route(&socket)?;
    // What the template may have put there is of another network.
    match fs::remove_file(RESOLV_CONF) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(RESOLV_CONF, format!("nameserver {GATEWAY}\n"))
}

fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::INET, SocketType::DGRAM, None)?)
}

fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: an interface request is plain data; all zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn up(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel only reads `request` for this call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    done(result)
}

fn set_address(socket: &OwnedFd, what: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_addr = generic(address);
    // SAFETY: the descriptor is open, and the kernel only reads `request` for this call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw const request) };
    done(result)
}

fn default_route(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: a route is plain data; all zeroes is a valid one.
    let mut route: libc::rtentry = unsafe { zeroed() };
    route.rt_dst = generic(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = generic(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = generic(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the descriptor is open, and the kernel only reads `route` for this call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &raw const route) };
    done(result)
}

/// An address as those requests take it: the family, then port and address of `sockaddr_in` as bytes.
fn generic(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
