/** Runs before each test file: its modules are evaluated again, so that they see the mocks of that file. */

import { vi } from "vitest";

vi.resetModules();
