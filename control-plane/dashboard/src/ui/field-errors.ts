/** What a refusal says about the fields of a form. Pure; tested in field-errors.test.ts. */
import { ApiError } from "../api/client.ts";

export interface FieldErrors<F extends string> {
  /** The messages by field. */
  fields: Partial<Record<F, string>>;
  /** The messages that no field is for. */
  rest: string[];
}

/** Sorts the messages of an answer by field. `fieldOf` says which field a JSON pointer is about, if the form has one. */
export function errorsByField<F extends string>(
  errors: readonly { pointer: string; detail: string }[],
  fieldOf: (pointer: string) => F | undefined,
): FieldErrors<F> {
  const fields: Partial<Record<F, string>> = {};
  const rest: string[] = [];
  for (const { pointer, detail } of errors) {
    const field = fieldOf(pointer);
    if (field === undefined) rest.push(detail);
    else fields[field] = fields[field] === undefined ? detail : `${fields[field]}; ${detail}`;
  }
  return { fields, rest };
}

/**
 * What stands at the fields of a form after it was sent, and what has to be shown beside them: undefined if the fields say
 * all of it. A taken name is told at the field `name`.
 */
export function refusalOf<F extends string>(
  error: unknown,
  fieldOf: (pointer: string) => F | undefined,
): { fields: Partial<Record<F | "name", string>>; beside: unknown } {
  type Fields = Partial<Record<F | "name", string>>;
  if (!(error instanceof ApiError)) return { fields: {}, beside: error };
  if (error.code === "name_taken") return { fields: { name: error.detail } as Fields, beside: undefined };
  const { fields, rest } = errorsByField(error.errors, fieldOf);
  const told = Object.keys(fields).length > 0 && rest.length === 0;
  return { fields: fields as Fields, beside: told ? undefined : error };
}
