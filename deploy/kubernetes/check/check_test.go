// Package check reads the manifests strictly, as Kubernetes' own types: a key that is
// misspelt, in the wrong place or given twice is an error.
//
//	make manifests
package check

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kinds are the types of what the manifests hold; nil is of somebody else, who checks it.
var kinds = map[string]func() any{
	"v1 Namespace":                                  func() any { return &corev1.Namespace{} },
	"v1 Service":                                    func() any { return &corev1.Service{} },
	"v1 ServiceAccount":                             func() any { return &corev1.ServiceAccount{} },
	"apps/v1 Deployment":                            func() any { return &appsv1.Deployment{} },
	"policy/v1 PodDisruptionBudget":                 func() any { return &policyv1.PodDisruptionBudget{} },
	"networking.k8s.io/v1 NetworkPolicy":            func() any { return &networkingv1.NetworkPolicy{} },
	"monitoring.coreos.com/v1 ServiceMonitor":       nil,
	"kustomize.config.k8s.io/v1beta1 Kustomization": nil,
	"kustomize.config.k8s.io/v1alpha1 Component":    nil,
}

// objects decodes every document of every manifest.
func objects(t *testing.T) (all []any) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, doc := range bytes.Split(text, []byte("\n---\n")) {
			var head metav1.TypeMeta
			if err := yaml.Unmarshal(doc, &head); err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			made, known := kinds[head.APIVersion+" "+head.Kind]
			if !known {
				t.Errorf("%s: %s %s is not known here", path, head.APIVersion, head.Kind)
			}
			if made == nil {
				continue
			}
			o := made()
			text, err := yaml.YAMLToJSONStrict(doc)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			strict, err := json.UnmarshalStrict(text, o) // as the API server does, case and all
			if err = errors.Join(append(strict, err)...); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			all = append(all, o)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestManifests(t *testing.T) {
	all := objects(t)
	pods := map[string]corev1.PodTemplateSpec{}
	for _, o := range all {
		d, ok := o.(*appsv1.Deployment)
		if !ok {
			continue
		}
		pods[d.Name] = d.Spec.Template
		matches(t, d.Name, d.Spec.Selector, d.Spec.Template)
		for _, s := range d.Spec.Template.Spec.TopologySpreadConstraints {
			matches(t, d.Name+" spread", s.LabelSelector, d.Spec.Template)
		}
		probed(t, d.Spec.Template.Spec)
	}
	if len(pods) != 2 {
		t.Fatalf("%d deployments; want lbd and vllm", len(pods))
	}
	for _, o := range all {
		switch o := o.(type) {
		case *corev1.Service:
			matches(t, "service "+o.Name, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, pods[o.Name])
			for _, p := range o.Spec.Ports {
				if !named(pods[o.Name].Spec, p.TargetPort.StrVal) {
					t.Errorf("service %s: no container has the port %q", o.Name, p.TargetPort.StrVal)
				}
			}
		case *policyv1.PodDisruptionBudget:
			matches(t, "budget "+o.Name, o.Spec.Selector, pods[o.Name])
		case *networkingv1.NetworkPolicy:
			matches(t, "policy "+o.Name, &o.Spec.PodSelector, pods[o.Name])
		}
	}
}

func matches(t *testing.T, who string, s *metav1.LabelSelector, pod corev1.PodTemplateSpec) {
	t.Helper()
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || sel.Empty() || !sel.Matches(labels.Set(pod.Labels)) {
		t.Errorf("%s: selector %v (%v) does not match the labels %v", who, s, err, pod.Labels)
	}
}

// probed says that every port that a probe names is there.
func probed(t *testing.T, s corev1.PodSpec) {
	t.Helper()
	for _, c := range s.Containers {
		for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			switch {
			case p == nil:
			case p.HTTPGet != nil && !named(s, p.HTTPGet.Port.StrVal), p.TCPSocket != nil && !named(s, p.TCPSocket.Port.StrVal):
				t.Errorf("%s: a probe of a port that is not there: %v", c.Name, p)
			}
		}
	}
}

func named(s corev1.PodSpec, port string) bool {
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			if p.Name == port {
				return true
			}
		}
	}
	return false
}
