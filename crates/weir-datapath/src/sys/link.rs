// SPDX-License-Identifier: Apache-2.0
//! Links: a program at the ingress or egress of an interface (tcx, Linux 6.6), at a device's driver (XDP), or at the
//! sockets of a cgroup.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use weir_abi::IfIndex;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Command, call, call_for_fd, number};

/// Which way packets pass, with the numbers of `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Side {
    /// `BPF_TCX_INGRESS`
    Ingress = 46,
    /// `BPF_TCX_EGRESS`
    Egress = 47,
}

/// Where a program meets a socket call, with the numbers of `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum SocketCall {
    /// `BPF_CGROUP_INET4_CONNECT`
    Connect4 = 10,
    /// `BPF_CGROUP_INET6_CONNECT`
    Connect6 = 11,
    /// `BPF_CGROUP_UDP4_SENDMSG`
    Send4 = 14,
    /// `BPF_CGROUP_UDP6_SENDMSG`
    Send6 = 15,
    /// `BPF_CGROUP_UDP4_RECVMSG`
    Receive4 = 19,
    /// `BPF_CGROUP_UDP6_RECVMSG`
    Receive6 = 20,
    /// `BPF_CGROUP_INET4_GETPEERNAME`
    PeerName4 = 29,
    /// `BPF_CGROUP_INET6_GETPEERNAME`
    PeerName6 = 30,
}

/// `BPF_XDP` of `enum bpf_attach_type`
const AT_DRIVER: u32 = 37;

/// Who runs a program at a device's driver, with the bits of `XDP_FLAGS_MODES`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum DriverMode {
    /// `XDP_FLAGS_SKB_MODE`: the kernel.
    Generic = 2,
    /// `XDP_FLAGS_DRV_MODE`: the driver.
    Driver = 4,
}

/// The beginning of the kernel's `struct bpf_link_info`, for cgroup links.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct CgroupLinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    padding: u32,
    /// Inode of the cgroup's directory; 0 once it is gone (`bpf_cgroup_link_fill_link_info`).
    pub(crate) cgroup: u64,
    pub(crate) call: u32,
    tail: u32,
}

/// The beginning of the kernel's `struct bpf_link_info`, for links at interfaces.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    padding: u32,
    /// 0 once the interface is gone (`tcx_link_fill_info`, `bpf_xdp_link_fill_link_info`).
    pub(crate) interface: IfIndex,
    /// Of tcx links.
    pub(crate) side: u32,
}

impl LinkInfo {
    /// Whether the link is of this kind, and still at this interface.
    pub(crate) fn is_at(&self, kind: u32, interface: IfIndex) -> bool {
        self.kind == kind && self.interface == interface
    }
}

/// `BPF_LINK_TYPE_TCX`
pub(crate) const TCX: u32 = 11;
/// `BPF_LINK_TYPE_XDP`
pub(crate) const XDP: u32 = 6;
/// `BPF_LINK_TYPE_CGROUP`
pub(crate) const CGROUP: u32 = 3;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct CreateAttribute {
    program: u32,
    /// An interface's number, or a descriptor of a cgroup's directory.
    target: u32,
    /// A number of [`Side`] or [`SocketCall`], or [`AT_DRIVER`].
    place: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct DetachAttribute {
    link: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct UpdateAttribute {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Attaches a program behind those that are there; the link lives as long as the descriptor or a pin.
pub(crate) fn create(
    program: BorrowedFd<'_>,
    interface: IfIndex,
    side: Side,
) -> io::Result<OwnedFd> {
    create_at(program, interface.get(), side as u32, 0)
}

/// Attaches a program to the sockets of a cgroup and of all below it, beside those that are there.
pub(crate) fn create_at_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    place: SocketCall,
) -> io::Result<OwnedFd> {
    create_at(program, number(cgroup), place as u32, 0)
}

/// Attaches a program to a device's driver, which has room for one.
pub(crate) fn create_at_driver(
    program: BorrowedFd<'_>,
    interface: IfIndex,
    mode: DriverMode,
) -> io::Result<OwnedFd> {
    create_at(program, interface.get(), AT_DRIVER, mode as u32)
}

fn create_at(program: BorrowedFd<'_>, target: u32, place: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attribute = CreateAttribute {
        program: number(program),
        target,
        place,
        flags,
        relative: 0,
        padding: 0,
        expected_revision: 0,
    };
    // SAFETY: the attribute holds no address, and the command makes a descriptor.
    unsafe { call_for_fd(Command::LinkCreate, &mut attribute) }
}

/// Puts another program in the place of the attached one; no packet passes without one of the two.
pub(crate) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = UpdateAttribute {
        link: number(link),
        program: number(program),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the attribute holds no address.
    unsafe { call(Command::LinkUpdate, &mut attribute) }.map(drop)
}

/// Takes a link's program away at once; the link stays, without a place.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = DetachAttribute { link: number(link) };
    // SAFETY: the attribute holds no address.
    unsafe { call(Command::LinkDetach, &mut attribute) }.map(drop)
}

/// What the kernel knows about a link.
pub(crate) fn info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    super::info(link)
}

/// The same, for a link at a cgroup.
pub(crate) fn cgroup_info(link: BorrowedFd<'_>) -> io::Result<CgroupLinkInfo> {
    super::info(link)
}
