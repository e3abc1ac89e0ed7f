import type { ApiError } from "../api/client.ts";

const steps: Record<string, string> = {
  no_answer: "This page keeps what it has and tries again.",
  forbidden: "Sign in with a token that may do this, or ask an operator.",
  not_found: "It may have been deleted, or it belongs to another project.",
  busy: "Wait until the other operation ends, or cancel it.",
  precondition_failed: "Somebody changed it meanwhile. Load the page again and repeat your change.",
  too_many_requests: "Wait a moment and try again.",
  unavailable: "Wait a moment and try again.",
  internal: "This is a fault of Muster. The controller's log has more under the request id.",
  not_built_yet: "This part of Muster is not built yet.",
};

/** What one can do after an error, where the API's own words do not say it. */
export function nextStep(error: ApiError): string | undefined {
  return steps[error.code];
}
