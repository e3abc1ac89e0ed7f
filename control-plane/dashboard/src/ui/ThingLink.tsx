import { searchOf } from "../api/scope.ts";
import { TextLink } from "./links.tsx";

interface Props {
  /** The kind as the API says it: `deployment`, `instance`, `image`, `version`, `snapshot`, `node`, `operation`. */
  kind: string;
  id: string;
  name?: string | null;
  /** The project of the thing. */
  project?: string;
}

/** The name of a thing as a link to its page; plain text for kinds that have none. */
export function ThingLink({ kind, id, name, project }: Props) {
  const text = name || id;
  const search = searchOf(project);
  switch (kind) {
    case "deployment":
      return (
        <TextLink to="/deployments/$deployment" params={{ deployment: id }} search={search}>
          {text}
        </TextLink>
      );
    case "instance":
      return (
        <TextLink to="/instances/$instance" params={{ instance: id }} search={search}>
          {text}
        </TextLink>
      );
    case "image":
      return (
        <TextLink to="/images/$image" params={{ image: id }} search={search}>
          {text}
        </TextLink>
      );
    case "version":
      return (
        <TextLink to="/versions/$version" params={{ version: id }} search={search}>
          {text}
        </TextLink>
      );
    case "snapshot":
      return (
        <TextLink to="/snapshots/$snapshot" params={{ snapshot: id }} search={search}>
          {text}
        </TextLink>
      );
    case "operation":
      return (
        <TextLink to="/operations/$operation" params={{ operation: id }} search={search}>
          {text}
        </TextLink>
      );
    case "node":
      return (
        <TextLink to="/nodes/$node" params={{ node: id }}>
          {text}
        </TextLink>
      );
    default:
      return <>{text}</>;
  }
}
