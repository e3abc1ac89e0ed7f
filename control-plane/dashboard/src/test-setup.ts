import { cleanup, configure } from "@testing-library/react";
import { afterEach } from "vitest";

// For a machine that has much else to do.
configure({ asyncUtilTimeout: 10_000 });
afterEach(cleanup);
