import { useIsOperator } from "../api/me.ts";
import { useProjects } from "../api/projects.ts";
import { allProjects, currentScope } from "../api/scope.ts";
import { SearchSelect } from "./SearchSelect.tsx";

interface Props {
  description: string;
  value: string | undefined;
  onChange: (project: string) => void;
}

/** Asks an operator who looks at all projects which one a new thing is for. For others it is clear, and nothing is shown. */
export function ProjectSelect({ description, value = "default", onChange }: Props) {
  const operator = useIsOperator();
  const projects = useProjects();
  if (!operator || currentScope() !== allProjects) return null;
  return (
    <SearchSelect
      label="Project"
      description={description}
      data={[...new Set([...projects, value])]}
      value={value}
      onChange={(chosen) => onChange(chosen ?? "default")}
    />
  );
}
