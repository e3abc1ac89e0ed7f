/** Names of images. Pure; tested in names.test.ts. */

const longest = 55;

/** A name for the image in a file: `Debian 12 (generic).qcow2` gives `debian-12-generic`. */
export function imageNameOf(file: string): string {
  return file
    .toLowerCase()
    .replace(/\.(qcow2|raw|img|iso|bin)$/, "")
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z]+/, "")
    .slice(0, longest)
    .replace(/[^a-z0-9]+$/, "");
}

/** What is wrong with a name, or undefined. */
export function nameTrouble(name: string): string | undefined {
  if (name === "") return "Give the image a name.";
  if (name.length > longest) return `At most ${longest} characters.`;
  if (!/^[a-z][a-z0-9._-]*$/.test(name)) return "Small letters, digits, - . and _, with a letter first.";
  return undefined;
}
