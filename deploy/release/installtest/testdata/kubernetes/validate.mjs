// Validates the objects of a JSON array on standard input against the schemas of the Kubernetes API (which kubernetes-models
// compiled), and prints what is wrong.
import {readFileSync} from 'node:fs';

import {ServiceMonitor} from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
import {Deployment} from 'kubernetes-models/apps/v1';
import {Job} from 'kubernetes-models/batch/v1';
import {NetworkPolicy} from 'kubernetes-models/networking.k8s.io/v1';
import {PodDisruptionBudget} from 'kubernetes-models/policy/v1';
import {ConfigMap, PersistentVolumeClaim, Service, ServiceAccount} from 'kubernetes-models/v1';

const kinds = {
  'v1/ConfigMap': ConfigMap,
  'v1/Service': Service,
  'v1/ServiceAccount': ServiceAccount,
  'v1/PersistentVolumeClaim': PersistentVolumeClaim,
  'apps/v1/Deployment': Deployment,
  'batch/v1/Job': Job,
  'policy/v1/PodDisruptionBudget': PodDisruptionBudget,
  'networking.k8s.io/v1/NetworkPolicy': NetworkPolicy,
  'monitoring.coreos.com/v1/ServiceMonitor': ServiceMonitor,
};
let bad = 0;
const objects = JSON.parse(readFileSync(0, 'utf8'));
for (const object of objects) {
  const kind = `${object.apiVersion}/${object.kind}`;
  try {
    if (!kinds[kind]) throw new Error('no schema');
    new kinds[kind](object).validate();
  } catch (err) {
    bad++;
    console.log(`${kind} ${object.metadata && object.metadata.name}: ${err.message}`);
  }
}
process.exit(bad ? 1 : 0);
