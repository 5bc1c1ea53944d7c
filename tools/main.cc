// SPDX-License-Identifier: Apache-2.0
#include "tools/cli.h"

int main(int argc, char** argv) { return twinspool::run_command_line(argc, argv); }
