// SPDX-License-Identifier: Apache-2.0
//! Single behaviours, by name.
