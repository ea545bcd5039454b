// SPDX-License-Identifier: Apache-2.0
//! Building packets.
